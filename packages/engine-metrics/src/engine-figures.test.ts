import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isEngineFigures } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { readEngineFigures } from './engine-figures.ts';

const vllm = `# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 12.0
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="Qwen/Qwen3-8B",reason="capacity"} 70.0
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.8312
vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="0",num_cpu_blocks="None",num_gpu_blocks="27000"} 1.0
vllm:prefix_cache_queries_total{engine="0",model_name="Qwen/Qwen3-8B"} 1.23456e+06
vllm:prefix_cache_queries_created{engine="0",model_name="Qwen/Qwen3-8B"} 1.76e+09
vllm:prefix_cache_hits_total{engine="0",model_name="Qwen/Qwen3-8B"} 655360.0
vllm:num_preemptions_total{engine="0",model_name="Qwen/Qwen3-8B"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="Qwen/Qwen3-8B"} 0.0
`;

const labels = 'engine_type="unified",model_name="meta-llama/Llama-3.1-8B-Instruct",pp_rank="0"';
const sglang = `sglang:num_running_reqs{${labels},priority="",tp_rank="0"} 5.0
sglang:num_running_reqs{${labels},priority="1",tp_rank="0"} 5.0
sglang:num_running_reqs{${labels},priority="",tp_rank="1"} 5.0
sglang:num_queue_reqs{${labels},priority="",tp_rank="0"} 2.0
sglang:token_usage{${labels},tp_rank="0"} 0.28
sglang:token_usage{${labels},tp_rank="1"} 0.28
sglang:max_total_num_tokens{${labels},tp_rank="0"} 161721.0
sglang:prompt_tokens_total{model_name="meta-llama/Llama-3.1-8B-Instruct"} 8.128902e+06
sglang:cached_tokens_total{cache_source="device",model_name="meta-llama/Llama-3.1-8B-Instruct"} 1000.0
sglang:cached_tokens_total{cache_source="host",model_name="meta-llama/Llama-3.1-8B-Instruct"} 24.0
sglang:num_retracted_requests_total{${labels},priority="",tp_rank="0"} 4.0
sglang:num_retracted_requests_total{${labels},priority="",tp_rank="1"} 4.0
`;

describe('the figures of an engine', () => {
  it('are read by the names of vLLM', () => {
    assert.deepEqual(readEngineFigures(vllm), {
      running: 12,
      waiting: 3,
      kvUsage: 0.831,
      promptTokens: 1_234_560,
      cachedTokens: 655_360,
      preemptions: 2,
      kvBlocks: 27_000,
      blockTokens: 16,
    });
  });

  it('are read by the names that vLLM had before, and those of SGLang, each number once', () => {
    const before = vllm
      .replaceAll('kv_cache_usage_perc', 'gpu_cache_usage_perc')
      .replaceAll('vllm:prefix_cache', 'vllm:gpu_prefix_cache');
    assert.deepEqual(readEngineFigures(before), readEngineFigures(vllm));
    assert.deepEqual(readEngineFigures(sglang), {
      running: 5,
      waiting: 2,
      kvUsage: 0.28,
      promptTokens: 8_128_902,
      cachedTokens: 1024,
      preemptions: 4,
      kvBlocks: 161_721,
      blockTokens: 1,
    });
  });

  it('are the sum of the ranks behind one address', () => {
    const second = vllm.replaceAll('engine="0"', 'engine="1"').replace('0.8312', '0.1688');
    const both = readEngineFigures(vllm + second);
    assert.deepEqual([both?.running, both?.waiting, both?.kvUsage, both?.kvBlocks], [24, 6, 0.5, 54_000]);
  });

  it('leave out what is not told, or is no number', () => {
    const least = 'vllm:num_requests_running 1\nvllm:num_requests_waiting 0 1700000000000\n';
    assert.deepEqual(readEngineFigures(least), { running: 1, waiting: 0 });
    const odd = `${least}vllm:kv_cache_usage_perc NaN\nvllm:num_preemptions_total -1\nvllm:cache_config_info{num_gpu_blocks="None",block_size="16"} 1\n`;
    assert.deepEqual(readEngineFigures(odd), { running: 1, waiting: 0 });
    assert.deepEqual(readEngineFigures(`vllm:num_preemptions_total{a="\\"} 9",b="{}"} 3\n${least}`), {
      running: 1,
      waiting: 0,
      preemptions: 3,
    });
  });

  it('are none in a text that has no requests, or numbers that no engine has', () => {
    for (const text of [
      '',
      'go_goroutines 7\n',
      '<html>vllm:num_requests_running</html>',
      'vllm:num_requests_running 1\n',
      'vllm:num_requests_running -1\nvllm:num_requests_waiting 0\n',
      'vllm:num_requests_running 1e12\nvllm:num_requests_waiting 0\n',
      'vllm:num_requests_running +Inf\nvllm:num_requests_waiting 0\n',
      'vllm:num_requests_running 1\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 83\n',
      'vllm:num_requests_running{engine="0" 1\nvllm:num_requests_waiting 0\n',
      'vllm:num_requests_waiting{engine="1"} 0\n'.repeat(5000),
    ]) {
      assert.equal(readEngineFigures(text), null, text.slice(0, 100));
    }
  });

  it('are such that can be reported, or none, whatever the text says', () => {
    const part = fc.oneof(
      fc.constantFrom(
        ...vllm.split('\n'),
        ...sglang.split('\n'),
        '{',
        '}',
        '"',
        '\\',
        '\n',
        ' 1e999',
        ' -0',
        ' 0x10',
        ',',
      ),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 40 }), (parts) => {
        for (const between of ['\n', '']) {
          const figures = readEngineFigures(parts.join(between));
          assert.ok(figures === null || isEngineFigures(figures));
        }
      }),
    );
  });

  it('are read in time that grows with the text, also of lines without an end', () => {
    const long = `vllm:num_requests_running{${'a="\\\\",'.repeat(200_000)}`;
    const started = performance.now();
    assert.equal(readEngineFigures(long), null);
    assert.equal(readEngineFigures(`vllm:num_requests_running{a="${'\\"'.repeat(500_000)}`), null);
    assert.ok(performance.now() - started < 5000);
  });
});
