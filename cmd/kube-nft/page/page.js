// SPDX-License-Identifier: Apache-2.0

// The status page: it asks api/v1/status and api/v1/services while it is seen, and
// shows the answers. Nothing from an answer ever becomes markup: it is set as text.
'use strict';

const every = 2000; // milliseconds from one answer to the next question
const rows = 50;
const rates = []; // of the last minutes, for the line
const open = new Set(); // the Service ports that are shown in detail
let offset = 0;
let total = 0;
let timer = 0;

const $ = (id) => document.getElementById(id);

// el makes an element with text, a class and children.
function el(name, text, className, ...children) {
  const e = document.createElement(name);
  if (text !== undefined && text !== null) e.textContent = text;
  if (className) e.className = className;
  e.append(...children);
  return e;
}

const number = (n) => n.toLocaleString('en-GB');

function perSecond(n) {
  if (n === undefined) return '–';
  return n >= 100 ? number(Math.round(n)) : n >= 1 ? n.toFixed(1) : n > 0 ? n.toFixed(2) : '0';
}

function duration(seconds) {
  if (seconds < 1e-3) return (seconds * 1e6).toFixed(0) + ' µs';
  if (seconds < 1) return (seconds * 1e3).toFixed(1) + ' ms';
  if (seconds < 120) return seconds.toFixed(1) + ' s';
  if (seconds < 7200) return Math.floor(seconds / 60) + ' min';
  if (seconds < 172800) return Math.floor(seconds / 3600) + ' h';
  return Math.floor(seconds / 86400) + ' d';
}

async function ask(path) {
  const response = await fetch(path, { cache: 'no-store' });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error || response.status + ' ' + response.statusText);
  return body;
}

function problem(text) {
  $('problem').hidden = !text;
  $('problem').textContent = text || '';
}

function showStatus(s) {
  $('node').textContent = s.node;
  document.title = 'kube-nft ' + s.node;
  const wrong = s.tables.some((t) => t.altered) || s.faults.some((f) => !f.missing) || s.tables.length === 0;
  $('health').textContent = !s.healthy ? 'not in step' : wrong ? 'tables are not as they should be' : 'in step';
  $('health').className = 'badge ' + (s.healthy && !wrong ? 'good' : 'bad');
  $('about').textContent = s.version + ', up for ' + duration((Date.parse(s.at) - Date.parse(s.started)) / 1000);
  $('ports').textContent = number(s.servicePorts);
  $('unserved').textContent = number(s.unserved);
  $('unserved-card').classList.toggle('alarm', s.unserved > 0);
  $('rate').textContent = s.counted ? perSecond(s.connectionsPerSecond) : 'not counted';
  if (s.connectionsPerSecond !== undefined) showRates(s.connectionsPerSecond);
  const drifts = Object.values(s.drifts).reduce((a, b) => a + b, 0);
  $('drift').textContent = number(drifts);
  $('drift-card').classList.toggle('alarm', drifts > 0);
  $('commits').textContent = number(s.passes.succeeded);
  $('commits-text').textContent = 'passes that wrote, ' + number(s.passes.failed) + ' failed';
  $('failed-card').classList.toggle('alarm', s.passes.failed > 0);
  $('tables').replaceChildren(...s.tables.map(showTable), ...s.faults.map(showFault));
  $('passes').replaceChildren(...s.passes.last.map(showPass));
}

function showRates(n) {
  rates.push(n);
  if (rates.length > 120) rates.shift();
  const top = Math.max(...rates, 1);
  const points = rates.map((r, i) => (120 - (rates.length - 1 - i)).toFixed(0) + ',' + (31 - 30 * r / top).toFixed(1));
  document.querySelector('#spark polyline').setAttribute('points', points.join(' '));
}

const opened = new Set(); // the tables whose sets are shown

function showTable(t) {
  const card = el('div', null, 'table',
    el('h3', null, '', el('span', t.table), el('span', t.altered ? 'altered' : 'as made', 'badge ' + (t.altered ? 'bad' : 'good'))));
  if (t.altered) card.append(el('p', t.altered, 'wrong'));
  card.append(el('div', null, '', ...(t.features.length ? t.features : ['no features']).map((f) => el('span', f, 'badge'))));
  const sets = Object.entries(t.elements).sort((a, b) => b[1] - a[1]);
  const details = el('details', null, '',
    el('summary', number(sets.reduce((n, s) => n + s[1], 0)) + ' elements in ' + sets.length + ' sets'),
    el('table', null, '', ...sets.map(([name, n]) => el('tr', null, '', el('td', name), el('td', number(n), 'n')))));
  details.open = opened.has(t.table);
  details.addEventListener('toggle', () => { details.open ? opened.add(t.table) : opened.delete(t.table); });
  card.append(details);
  return card;
}

function showFault(f) {
  return el('div', null, 'table',
    el('h3', null, '', el('span', f.ipFamily), el('span', f.missing ? 'no table' : 'cannot be read', 'badge ' + (f.missing ? '' : 'bad'))),
    el('p', f.missing ? 'This family has no table, or it is not served.' : f.error, f.missing ? 'quiet' : 'wrong'));
}

function showPass(p) {
  const at = new Date(p.at);
  const cells = [el('td', at.toLocaleTimeString('en-GB'))];
  cells[0].title = at.toISOString();
  if (p.error) {
    const why = el('td', (p.times > 1 ? p.times + ' times: ' : '') + p.error, 'error');
    why.colSpan = 5;
    return el('tr', null, '', ...cells, why);
  }
  const what = (p.compared ? 'whole tables compared, ' : '') + (p.transactions === 1 ? '1 transaction' : p.transactions + ' transactions');
  cells.push(el('td', duration(p.tookSeconds), 'n'), el('td', number(p.services), 'n'), el('td', number(p.added), 'n'), el('td', number(p.deleted), 'n'), el('td', what));
  return el('tr', null, '', ...cells);
}

const where = (f) => f.kind === 'NodePort' ? (f.ipFamily === 'IPv6' ? '[*]:' : '*:') + f.port
  : (f.ipFamily === 'IPv6' ? '[' + f.address + ']' : f.address) + ':' + f.port;

function frontends(p, kind) {
  const all = p.frontends.filter((f) => f.kind === kind);
  if (!all.length) return '';
  if (kind === 'NodePort') return all[0].port;
  return where(all[0]) + (all.length > 1 ? ' +' + (all.length - 1) : '');
}

// size is how many endpoints there are; a pod of two families counts once.
function size(p) {
  const of = (six) => p.endpoints.filter((e) => e.address.includes(':') === six).length;
  return Math.max(of(false), of(true));
}

function showPort(p) {
  const key = [p.namespace, p.service, p.port, p.protocol].join('/');
  const row = el('tr', null, 'port',
    el('td', p.namespace), el('td', p.service + (p.port ? ':' + p.port : '')), el('td', p.protocol),
    el('td', frontends(p, 'ClusterIP')), el('td', frontends(p, 'External')), el('td', frontends(p, 'NodePort')),
    el('td', number(size(p)), 'n'), el('td', null, '', el('span', p.state, 'badge ' + p.state)),
    el('td', perSecond(p.connectionsPerSecond), 'n'), el('td', number(p.connections), 'n'));
  row.tabIndex = 0;
  const toggle = () => { open.has(key) ? open.delete(key) : open.add(key); refresh(); };
  row.addEventListener('click', toggle);
  row.addEventListener('keydown', (e) => { if (e.key === 'Enter') toggle(); });
  return open.has(key) ? [row, showMore(p)] : [row];
}

function showMore(p) {
  const line = (f, way, clients) => el('tr', null, '',
    el('td', f.kind), el('td', where(f)), el('td', clients), el('td', null, '', el('span', way.state, 'badge ' + way.state)),
    el('td', number(way.endpoints.length), 'n'), el('td', way.masquerade || ''), el('td', number(way.packets), 'n'),
    el('td', f.sourceRanges ? f.sourceRanges.join(', ') || 'nobody' : 'all'));
  const lines = p.frontends.flatMap((f) => f.others
    ? [line(f, f, 'pods here, the node'), line(f, f.others, 'everybody else')] : [line(f, f, 'all')]);
  const head = ['Frontend', 'Address', 'Clients', 'State', 'Endpoints', 'Masqueraded', 'Packets', 'From'].map((h) => el('th', h));
  const cell = el('td', null, '', el('table', null, '', el('tr', null, '', ...head), ...lines));
  cell.colSpan = 10;
  if (p.affinity) {
    cell.append(el('p', 'Clients stay with an endpoint for ' + duration(p.affinity.timeoutSeconds) +
      (p.affinity.clients === undefined ? '' : '; ' + number(p.affinity.clients) + ' are remembered') + (p.affinity.full ? ', no room for more' : '')));
  }
  cell.append(el('div', null, 'endpoints', ...p.endpoints.slice(0, 200).map((e) => {
    const s = el('span', (e.address.includes(':') ? '[' + e.address + ']' : e.address) + ':' + e.port, e.thisNode ? 'here' : '');
    s.title = e.thisNode ? 'on this node' : 'elsewhere';
    return s;
  }), ...(p.endpoints.length > 200 ? [el('span', 'and ' + number(p.endpoints.length - 200) + ' more')] : [])));
  return el('tr', null, 'more', cell);
}

function showServices(s) {
  total = s.total;
  offset = s.offset;
  $('services').replaceChildren(...s.items.flatMap(showPort));
  if (!s.items.length) {
    const none = el('td', 'No Service ports found.', 'quiet');
    none.colSpan = 10;
    $('services').replaceChildren(el('tr', null, '', none));
  }
  $('range').textContent = s.items.length ? number(offset + 1) + ' to ' + number(offset + s.items.length) + ' of ' + number(total) : '';
  $('back').disabled = offset === 0;
  $('next').disabled = offset + rows >= total;
}

function services() {
  const q = new URLSearchParams({ sort: $('sort').value, offset, limit: rows });
  if ($('text').value) q.set('text', $('text').value);
  if ($('namespace').value) q.set('namespace', $('namespace').value);
  if ($('only-unserved').checked) q.set('unserved', 'true');
  return ask('api/v1/services?' + q);
}

let asked = 0;

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return; // nobody looks: nothing is read
  const mine = ++asked;
  try {
    const [status, list] = [await ask('api/v1/status'), await services()];
    if (mine !== asked) return; // something else was asked for meanwhile
    showStatus(status);
    showServices(list);
    problem('');
  } catch (e) {
    if (mine !== asked) return;
    problem('No answer from kube-nft, what is below is old: ' + e.message);
    $('health').textContent = 'no answer';
    $('health').className = 'badge bad';
  }
  timer = setTimeout(refresh, every);
}

function begin() {
  offset = 0;
  refresh();
}

$('filter').addEventListener('submit', (e) => { e.preventDefault(); begin(); });
for (const id of ['text', 'namespace', 'only-unserved', 'sort']) $(id).addEventListener('input', begin);
$('back').addEventListener('click', () => { offset = Math.max(0, offset - rows); refresh(); });
$('next').addEventListener('click', () => { offset += rows; refresh(); });
document.addEventListener('visibilitychange', refresh);
refresh();
