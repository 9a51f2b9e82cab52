/** Which form of the metrics a client wants, by its Accept header (RFC 9110, 12.5.1). */

const FORMS = {
  open: { type: 'application/openmetrics-text', version: '1.0.0' },
  text: { type: 'text/plain', version: '0.0.4' },
} as const;

/** True where OpenMetrics is wanted more than the text form, or as much and named more exactly. Without a word, the text form it is. */
export function prefersOpenMetrics(accept = ''): boolean {
  const open = wanted(accept, FORMS.open);
  const text = wanted(accept, FORMS.text);
  return open.weight > text.weight || (open.weight > 0 && open.weight === text.weight && open.rank > text.rank);
}

/** The weight that the most exact range gives to a form; rank: 2 its type, 1 `application/*`, 0 anything. */
function wanted(
  accept: string,
  { type, version }: (typeof FORMS)[keyof typeof FORMS],
): { weight: number; rank: number } {
  const ranges = accept.split(',').map((range) => {
    const [name = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const valueOf = (parameter: string) =>
      parameters
        .map((each) => each.split('='))
        .find(([key]) => key?.trim() === parameter)?.[1]
        ?.trim();
    const weight = valueOf('q') ?? '1';
    const fits = (valueOf('version')?.replaceAll('"', '') ?? version) === version;
    return {
      // what is no weight asks for nothing
      weight: /^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/.test(weight) ? Number(weight) : 0,
      rank: fits ? ['*/*', `${type.split('/')[0]}/*`, type].indexOf(name) : -1,
    };
  });
  const rank = Math.max(...ranges.map((range) => range.rank));
  const weights = ranges.filter((range) => range.rank >= 0 && range.rank === rank).map(({ weight }) => weight);
  return { weight: Math.max(0, ...weights), rank };
}
