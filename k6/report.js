// The end of a run as a few lines of text, and as JSON for who wants to compare runs.

import { FIGURES_FILE } from './settings.js';

function values(data, metric) {
  const found = data.metrics[metric];
  return found ? found.values : {};
}

// A counter's total; a share's number of times that it was true.
export function count(data, metric) {
  const found = values(data, metric);
  return found.count || found.passes || 0;
}

export function perSecond(data, metric) {
  return values(data, metric).rate || 0;
}

export function latency(data, metric = 'http_req_duration') {
  const found = values(data, metric);
  return {
    median_ms: found.med || 0,
    p95_ms: found['p(95)'] || 0,
    p99_ms: found['p(99)'] || 0,
    max_ms: found.max || 0,
  };
}

export function latencyText(figures) {
  const ms = (value) => value.toFixed(1);
  return `median ${ms(figures.median_ms)}   p95 ${ms(figures.p95_ms)}   ` +
    `p99 ${ms(figures.p99_ms)}   max ${ms(figures.max_ms)}`;
}

export function thousands(value) {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ',');
}

// `metric: condition` of every threshold that was not met.
function missed(data) {
  const out = [];
  for (const name of Object.keys(data.metrics)) {
    const thresholds = data.metrics[name].thresholds || {};
    for (const condition of Object.keys(thresholds)) {
      if (!thresholds[condition].ok) {
        out.push(`${name}: ${condition}`);
      }
    }
  }
  return out;
}

// What handleSummary returns: `lines` = [[label, text], …] on standard output, `figures` as JSON.
export function report(title, data, lines, figures) {
  const notMet = missed(data);
  const verdict = notMet.length ? `NOT MET  ${notMet.join(', ')}` : 'all met';
  const all = [...lines, ['thresholds', verdict]];
  const width = Math.max(...all.map(([label]) => label.length));
  const body = all.map(([label, text]) => `  ${label.padEnd(width)}  ${text}\n`).join('');
  const out = { stdout: `\n${title}\n${body}\n` };
  if (FIGURES_FILE) {
    out[FIGURES_FILE] = JSON.stringify({ ...figures, thresholds_not_met: notMet });
  }
  return out;
}
