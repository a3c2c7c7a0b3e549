import type { Plan } from './plan.ts';
import type { RoundsOptions } from './rounds.ts';
import { startTargets, type TargetName, targetNames } from './targets/catalogue.ts';
import type { Setting, Target } from './targets/target.ts';

type Targets = Awaited<ReturnType<typeof startTargets>>;

/** One run of the benchmark: what its parts share. Disposing ends the targets. */
export class Session implements AsyncDisposable {
  readonly setting: Setting;
  readonly plan: Plan;
  /** Cases that were given up. */
  readonly failures: string[] = [];
  readonly #say: (text: string) => void;
  #targets: Promise<Targets> | undefined;

  /** `say` is told how far the run is. */
  constructor(setting: Setting, plan: Plan, say: (text: string) => void) {
    this.setting = setting;
    this.plan = plan;
    this.#say = say;
  }

  /**
   * Those of the catalogue, started when a part first asks for some and running side by side from
   * then on.
   */
  async targets(names: readonly TargetName[] = targetNames): Promise<[TargetName, Target][]> {
    this.#targets ??= startTargets(this.setting);
    const { all } = await this.#targets;
    return [...all].filter(([name]) => names.includes(name));
  }

  rounds(rounds: number): RoundsOptions {
    const onFailure = (text: string) => {
      this.failures.push(text);
      this.#say(`given up: ${text}`);
    };
    return { rounds, onRound: this.#say, onFailure };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Those that did not start have said so to who asked for them.
    const targets = await this.#targets?.catch(() => undefined);
    await targets?.[Symbol.asyncDispose]();
  }
}
