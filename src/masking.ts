/**
 * Addresses without their secrets, to be shown. A password may hold any character, also those that end it where it is not percent-encoded: then a parser takes
 * a part of it for a host, a port or a path. So nothing is parsed here: all before the last @ is hidden, and of the query all that is not
 * known to be harmless.
 */
const MASK = '****';

/** Parameters of an address of PostgreSQL whose values are no secret. */
const HARMLESS = [
  'host',
  'port',
  'dbname',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'target_session_attrs',
  'connect_timeout',
];
/** Those whose names are shown without the value. */
const NAMED = ['user', 'password', 'sslpassword', 'passfile', 'application_name', 'options'];

/** The address as it may be shown: scheme, host, path and harmless parameters. */
export function maskAddress(address: string): string {
  const [, scheme, rest] = /^([a-z][a-z0-9+.-]*:\/\/)(.*)$/is.exec(address) ?? [];
  if (scheme === undefined || rest === undefined) return MASK;
  const at = rest.lastIndexOf('@');
  const postgres = /^postgres(ql)?:/i.test(scheme);
  // an @ behind a ? may be within a password or within a parameter; a # begins nothing in an address of PostgreSQL
  if ((postgres ? /\?/ : /[?#]/).test(rest.slice(0, Math.max(0, at)))) return scheme + MASK;
  const [, place = '', query, fragment] = /^([^?#]*)(\?[^#]*)?(#.*)?$/s.exec(rest.slice(at + 1)) ?? [];
  return [
    scheme,
    at === -1 ? '' : `${MASK}@`,
    place,
    query === undefined
      ? ''
      : `?${query
          .slice(1)
          .split('&')
          .map((each) => maskParameter(each, postgres))
          .join('&')}`,
    fragment === undefined ? '' : `#${MASK}`,
  ].join('');
}

function maskParameter(parameter: string, postgres: boolean): string {
  const name = parameter.split('=', 1)[0]!;
  if (postgres && HARMLESS.includes(name)) return parameter;
  return postgres && NAMED.includes(name) ? `${name}=${MASK}` : MASK;
}
