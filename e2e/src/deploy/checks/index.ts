import type { Site } from '../site.ts';
import { checkDisaggregation } from './disaggregation.ts';
import { checkEtcdFailover } from './etcd-failover.ts';
import { checkLoadBalance } from './load-balance.ts';
import { checkTrafficMirror } from './traffic-mirror.ts';
import { checkPrefixSplitting, checkWeightSplitting } from './traffic-splitting.ts';

/** What each example must show, by the name of its folder in deploy/simulated. */
export const checks: Readonly<Record<string, (site: Site) => Promise<void>>> = {
  neutral: checkLoadBalance,
  'etcd-discovery': checkEtcdFailover,
  pd: (site) => checkDisaggregation(site, 'vllm-mooncake'),
  'pd-kvs': (site) => checkDisaggregation(site, 'vllm-kvt'),
  'traffic-splitting-prefix': checkPrefixSplitting,
  'traffic-splitting-weight': checkWeightSplitting,
  'traffic-mirror': checkTrafficMirror,
};
