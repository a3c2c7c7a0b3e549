import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Bus, inProcessBus } from '@llm-gateway/bus';
import { type EngineFigures, engineReport } from '@llm-gateway/protocol';
import { type Engine, respond, stall, startEngine, until } from '@llm-gateway/testing';
import { EngineReporter, type EngineReporterOptions, type EngineTarget } from './engine-reporter.ts';

function text({ running = 0, waiting = 0 }): string {
  return `vllm:num_requests_running ${running}\nvllm:num_requests_waiting ${waiting}\n`;
}

interface Heard {
  readonly instance: string;
  readonly figures: EngineFigures;
  readonly atMs: number;
}

/** A reporter, the bus that it speaks on, and what was heard there. */
class Scene implements AsyncDisposable {
  readonly bus: Bus = inProcessBus();
  readonly heard: Heard[] = [];
  readonly failures: string[] = [];
  readonly reporter: EngineReporter;

  constructor(options: Partial<EngineReporterOptions> = {}) {
    this.bus.subscribe(engineReport, ({ engines }) => {
      for (const engine of engines) this.heard.push({ ...engine, atMs: performance.now() });
    });
    this.reporter = new EngineReporter({
      bus: this.bus,
      reporter: 'registrar-1',
      intervalMs: 200,
      path: '/metrics',
      onFailed: (why) => this.failures.push(why),
      ...options,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.reporter[Symbol.asyncDispose]();
    await this.bus[Symbol.asyncDispose]();
  }
}

function target(engine: Engine, id = 'a'): EngineTarget {
  return { id, host: engine.host, port: engine.port };
}

describe('a reporter of engines', () => {
  it('tells each change once, and each second what did not change', async () => {
    let figures = { running: 2, waiting: 1 };
    await using engine = await startEngine(() => respond(200, text(figures)));
    await using scene = new Scene();
    scene.reporter.change([target(engine)], []);
    await until(() => scene.heard.length === 1);
    assert.deepEqual(scene.heard[0]?.figures, { running: 2, waiting: 1 });
    figures = { running: 3, waiting: 0 };
    await until(() => scene.heard.length === 2);
    assert.deepEqual(scene.heard[1]?.figures, figures);
    await until(() => scene.heard.length === 3);
    assert.deepEqual(scene.heard[2]?.figures, figures);
    // More often than it tells it looks, so that it is late for no change.
    assert.ok(engine.requests.length > 3, `${engine.requests.length}`);
    assert.ok(engine.requests.every(({ url, method }) => url === '/metrics' && method === 'GET'));
    assert.ok(engine.connectionCount <= 2);
  });

  it('says nothing of an engine that does not answer, or not as one; and of one that is gone or reported by others', async () => {
    await using silent = await startEngine(() => stall('before-head'));
    await using broken = await startEngine(() => respond(500, text({})));
    await using page = await startEngine(() => respond(200, '<html></html>'));
    await using endless = await startEngine(() => respond(200, 'x'.repeat(3 * 1024 * 1024)));
    await using gone = await startEngine(() => respond(200, text({})));
    await using other = await startEngine(() => respond(200, text({})));
    await using good = await startEngine(() => respond(200, text({ running: 1 })));
    await using scene = new Scene({ isReported: (instance) => instance === 'other' });
    const engines = Object.entries({ silent, broken, page, endless, gone, other, good });
    scene.reporter.change(
      engines.map(([id, engine]) => target(engine, id)),
      [],
    );
    scene.reporter.change([], ['gone']);
    await until(
      () => scene.failures.filter((why) => why === 'unanswered').length >= 3 && scene.failures.includes('unreadable'),
      { timeoutMs: 20_000 },
    );
    await until(() => scene.heard.length >= 2);
    assert.deepEqual([...new Set(scene.heard.map(({ instance }) => instance))], ['good']);
    assert.equal(other.requests.length + gone.requests.length, 0);
  });

  it('looks at an engine again when it is back, and goes on at its new address', async () => {
    await using first = await startEngine(() => respond(200, text({ running: 1 })));
    await using second = await startEngine(() => respond(200, text({ running: 2 })));
    await using scene = new Scene();
    scene.reporter.change([target(first)], []);
    await until(() => scene.heard.length === 1);
    await first.stop();
    await until(() => scene.failures.length > 0);
    await first.start();
    const before = scene.heard.length;
    await until(() => scene.heard.length > before);
    scene.reporter.change([target(second)], []);
    await until(() => scene.heard.at(-1)?.figures.running === 2);
  });

  it('tells of many engines in few messages', async () => {
    await using engine = await startEngine(() => respond(200, text({ running: 1 })));
    await using scene = new Scene();
    let messages = 0;
    scene.bus.subscribe(engineReport, () => {
      messages++;
    });
    const ids = Array.from({ length: 40 }, (_, at) => `pod-${at}_dp0`);
    scene.reporter.change(
      ids.map((id) => target(engine, id)),
      [],
    );
    await until(() => new Set(scene.heard.map(({ instance }) => instance)).size === ids.length, { timeoutMs: 60_000 });
    assert.ok(messages <= scene.heard.length);
  });
});
