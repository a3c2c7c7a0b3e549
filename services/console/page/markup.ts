import htm from 'htm';
import { h } from 'preact';

/** Templates without a compiler: `html\`<p>…</p>\`` makes nodes of preact. */
export const html = htm.bind(h);
