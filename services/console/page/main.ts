import { render } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { ClientsView } from './clients-view.ts';
import { EnginesView } from './engines-view.ts';
import { EventsView } from './events-view.ts';
import { html } from './markup.ts';
import { MirrorView } from './mirror-view.ts';
import { NowView, VerdictLine } from './now-view.ts';
import { ProcessesView } from './processes-view.ts';
import { RequestsView } from './requests-view.ts';
import { RoutesView } from './routes-view.ts';
import { changed, getJson, listen, loadEvents, type Me, post, store, useStore } from './store.ts';
import { TryView } from './trial-view.ts';
import { type Asked, askedIn } from './where.ts';

interface View {
  readonly path: string;
  readonly name: string;
  /** What of the live stream it shows. */
  readonly topics: string;
  readonly filters: boolean;
}

const views: readonly View[] = [
  { path: '/', name: 'Now', topics: '', filters: false },
  { path: '/engines', name: 'Engines', topics: 'engines', filters: true },
  { path: '/requests', name: 'Requests', topics: 'requests', filters: true },
  { path: '/routes', name: 'Routes', topics: 'processes', filters: false },
  { path: '/clients', name: 'Clients', topics: 'clients', filters: true },
  { path: '/mirror', name: 'Mirror', topics: 'processes', filters: false },
  { path: '/processes', name: 'Processes', topics: 'processes', filters: true },
  { path: '/events', name: 'Events', topics: '', filters: true },
  { path: '/try', name: 'Try it', topics: '', filters: false },
];

function viewAt(path: string): View {
  return views.find((view) => view.path === path) ?? (views[0] as View);
}

function go(path: string): void {
  history.pushState(null, '', path);
  dispatchEvent(new PopStateEvent('popstate'));
}

function useAddress(): URL {
  const [url, setUrl] = useState(() => new URL(location.href));
  useEffect(() => {
    const read = () => setUrl(new URL(location.href));
    addEventListener('popstate', read);
    return () => removeEventListener('popstate', read);
  }, []);
  return url;
}

function App() {
  const { me, paused, lost } = useStore();
  const url = useAddress();
  const view = viewAt(url.pathname);
  const filter = view.filters ? (url.searchParams.get('q') ?? '') : '';
  const search = useRef<HTMLInputElement>(null);
  const [help, setHelp] = useState(false);
  const [theme, setTheme] = useState(themeAtStart);

  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  useEffect(() => {
    document.title = `${view.name} · llm-gateway`;
    const timer = setTimeout(() => listen(view.topics, view.topics === 'requests' ? filter : ''), 100);
    return () => clearTimeout(timer);
  }, [view.path, view.topics === 'requests' ? filter : '']);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const typing =
        event.target instanceof HTMLElement && event.target.closest('input, textarea, select, dialog') !== null;
      if (event.key === 'Escape' && document.activeElement instanceof HTMLInputElement) document.activeElement.blur();
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      const numbered = views[Number(event.key) - 1];
      if (event.key === '/') {
        event.preventDefault();
        search.current?.focus();
      } else if (event.key === 'p') pause();
      else if (event.key === '?') setHelp(true);
      else if (numbered !== undefined) go(numbered.path);
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);

  const setQuery = (name: string, value: string) => {
    const next = new URL(location.href);
    if (value === '') next.searchParams.delete(name);
    else next.searchParams.set(name, value);
    history.replaceState(null, '', next);
    dispatchEvent(new PopStateEvent('popstate'));
  };
  const follow = (event: MouseEvent) => {
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    const own = link?.origin === location.origin && link.target === '';
    if (!own || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(link.pathname + link.search);
  };

  return html`
    <div onClick=${follow}>
      <header class="top">
        <span class="name">llm-gateway</span>
        <nav aria-label="Views">
          ${views.map(({ path, name }) => html`<a key=${path} href=${path} aria-current=${path === view.path ? 'page' : null}>${name}</a>`)}
        </nav>
        <div class="tools">
          <span class=${`live ${lost ? 'lost' : paused ? 'paused' : ''}`} role="status">${lost ? 'console away' : paused ? 'paused' : 'live'}</span>
          <button onClick=${pause} aria-pressed=${paused}>${paused ? 'Go on' : 'Pause'}</button>
          <button onClick=${() => setTheme(changeTheme())} aria-label="Light or dark">${theme === 'dark' ? '☀' : '☾'}</button>
          <button onClick=${() => setHelp(true)} aria-label="Help">?</button>
          ${me?.password && html`<button onClick=${() => void post('/logout', {}).then(() => location.assign('/login'))}>Leave</button>`}
        </div>
      </header>
      <main>
        <h1 style=${{ position: 'absolute', left: '-9999px' }}>${view.name}</h1>
        <${VerdictLine} />
        ${
          view.filters &&
          html`
            <div class="bar">
              <input ref=${search} type="search" aria-label="Filter" placeholder="Filter, all words ( / )" value=${filter} onInput=${(event: Event) => setQuery('q', (event.target as HTMLInputElement).value)} />
            </div>
          `
        }
        <${Shown} view=${view} filter=${filter} query=${url.searchParams} openId=${url.searchParams.get('id') ?? ''} onOpen=${(id: string) => setQuery('id', id)} />
      </main>
      ${help && html`<${Help} onClose=${() => setHelp(false)} />`}
    </div>
  `;
}

function ask({ model, path, bytes }: Asked): void {
  go(`/routes?${new URLSearchParams({ model, path, ...(bytes > 0 && { bytes: String(bytes) }) })}`);
}

function Shown({
  view,
  filter,
  query,
  openId,
  onOpen,
}: {
  view: View;
  filter: string;
  query: URLSearchParams;
  openId: string;
  onOpen: (id: string) => void;
}) {
  switch (view.path) {
    case '/engines':
      return html`<${EnginesView} filter=${filter} />`;
    case '/requests':
      return html`<${RequestsView} filter=${filter} openId=${openId} onOpen=${onOpen} />`;
    case '/routes':
      return html`<${RoutesView} asked=${askedIn(query)} onAsk=${ask} />`;
    case '/clients':
      return html`<${ClientsView} filter=${filter} />`;
    case '/mirror':
      return html`<${MirrorView} />`;
    case '/processes':
      return html`<${ProcessesView} filter=${filter} />`;
    case '/events':
      return html`<${EventsView} filter=${filter} />`;
    case '/try':
      return html`<${TryView} />`;
    default:
      return html`<${NowView} />`;
  }
}

function Help({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const keys: readonly (readonly [string, string])[] = [
    ['/', 'filter'],
    ['p', 'pause, and go on'],
    ['1 – 9', 'the views, from left to right'],
    ['Esc', 'leave the filter or a dialog'],
    ['?', 'this help'],
  ];
  return html`
    <dialog ref=${dialog} onClose=${onClose} aria-labelledby="help-title">
      <h2 id="help-title">Keys</h2>
      <dl class="facts">${keys.map(([key, does]) => html`<dt key=${key}><kbd>${key}</kbd></dt><dd>${does}</dd>`)}</dl>
      <p class="muted">Every view, filter and request has an address of its own: copy it from the browser.</p>
      <div class="form"><div class="foot"><button onClick=${() => dialog.current?.close()}>Close</button></div></div>
    </dialog>
  `;
}

function pause(): void {
  store.paused = !store.paused;
  changed();
}

const themeKey = 'llm-gateway-theme';

function themeAtStart(): string {
  return localStorage.getItem(themeKey) ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
}

function changeTheme(): string {
  const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
  localStorage.setItem(themeKey, next);
  return next;
}

document.documentElement.dataset.theme = themeAtStart();
void getJson<Me>('/api/me').then((me) => {
  store.me = me;
  changed();
});
void loadEvents();
const app = document.getElementById('app') as HTMLElement;
app.replaceChildren();
render(html`<${App} />`, app);
