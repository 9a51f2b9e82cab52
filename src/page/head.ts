/** The head of an HTML document and its policy: nothing comes from elsewhere, and what may run and style is named by its hash. */
import { createHash } from 'node:crypto';
import { escape } from './wording.ts';

const hashOf = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

export function policyOf(style: string, script?: string): string {
  return [
    "default-src 'none'",
    `style-src ${hashOf(style)}`,
    ...(script === undefined ? [] : [`script-src ${hashOf(script)}`, "connect-src 'self'"]),
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
}

/** Up to the start of the body. `more`: further elements of the head. */
export function documentHead(title: string, style: string, more = ''): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${more}<title>${escape(title)}</title>
<style>${style}</style>
</head>
<body>`;
}
