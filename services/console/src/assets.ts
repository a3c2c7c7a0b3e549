import { createHash } from 'node:crypto';
import { globSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

/** One file of the page, ready to be sent. */
export interface Asset {
  readonly type: string;
  readonly plain: Buffer;
  readonly br: Buffer;
  readonly gzip: Buffer;
  readonly etag: string;
}

const pageFolder = join(import.meta.dirname, '../page');

/** The libraries of the page under the names by which its modules import them. */
const libraries = {
  preact: ['preact', 'preact.js'],
  'preact/hooks': ['preact/hooks', 'preact-hooks.js'],
  htm: ['htm', 'htm.js'],
  uplot: ['uplot/dist/uPlot.esm.js', 'uplot.js'],
} as const;

const importMap = JSON.stringify({
  imports: Object.fromEntries(Object.entries(libraries).map(([name, [, file]]) => [name, `/lib/${file}`])),
});

/** Only this inline script may run: the browser reads from it where the libraries are. */
const importMapHash = createHash('sha256').update(importMap).digest('base64');

/** No other origin, no frame around it, no inline script but the import map. */
export const contentSecurityPolicy = [
  "default-src 'none'",
  `script-src 'self' 'sha256-${importMapHash}'`,
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ');

/**
 * Every file of the page by its path. Nothing is built ahead: types are taken out of its modules
 * when the console starts, and libraries are served as their packages ship them.
 */
export function loadAssets(): ReadonlyMap<string, Asset> {
  const assets = new Map<string, Asset>();
  for (const file of globSync('*.ts', { cwd: pageFolder })) {
    const source = stripTypeScriptTypes(readFileSync(join(pageFolder, file), 'utf8')).replaceAll(
      /( from .\.\/[\w-]+)\.ts(?=.;$)/gm,
      '$1.js',
    );
    assets.set(`/app/${basename(file, '.ts')}.js`, asset('text/javascript', squeezed(source)));
  }
  for (const [specifier, file] of Object.values(libraries)) {
    const source = readFileSync(fileURLToPath(import.meta.resolve(specifier)), 'utf8');
    assets.set(`/lib/${file}`, asset('text/javascript', source.replace(/\n\/\/# sourceMappingURL=.*\s*$/, '\n')));
  }
  const uplotStyle = readFileSync(fileURLToPath(import.meta.resolve('uplot/dist/uPlot.min.css')), 'utf8');
  const style = readFileSync(join(pageFolder, 'style.css'), 'utf8');
  assets.set('/style.css', asset('text/css', `${uplotStyle}\n${style}`));
  // Otherwise the browser would learn of each module from the one that imports it.
  const modules = [...assets.keys()].filter((path) => path.endsWith('.js'));
  const preloads = modules.map((path) => `<link rel="modulepreload" href="${path}" />`).join('');
  const page = readFileSync(join(pageFolder, 'index.html'), 'utf8')
    .replace(/(?<=<script type="importmap">)[^<]*/, importMap)
    .replace('</head>', `${preloads}</head>`);
  assets.set('/', asset('text/html; charset=utf-8', page));
  assets.set('/login', asset('text/html; charset=utf-8', readFileSync(join(pageFolder, 'login.html'), 'utf8')));
  return assets;
}

/** Stripped types leave blanks. */
function squeezed(source: string): string {
  return source.replaceAll(/[ \t]+$/gm, '').replaceAll(/\n{3,}/g, '\n\n');
}

function asset(type: string, text: string): Asset {
  const plain = Buffer.from(text);
  return {
    type: type.startsWith('text/html') ? type : `${type}; charset=utf-8`,
    plain,
    br: brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } }),
    gzip: gzipSync(plain),
    etag: `"${createHash('sha256').update(plain).digest('base64url').slice(0, 20)}"`,
  };
}
