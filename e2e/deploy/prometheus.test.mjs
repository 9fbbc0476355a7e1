// A real Prometheus scrapes the real server with the rules as they are shipped: what a rule or a panel asks for is there.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { parser } from '@prometheus-io/lezer-promql'
import { ours } from '../servers.mjs'
import { subscriber } from '../socket.mjs'
import { folder, freePort, get, kit, missing, run, start, stop, until } from './processes.mjs'

const startMs = 20_000
const rulesFile = path.join(kit, 'prometheus/signaling.rules.yml')
const dashboard = JSON.parse(readFileSync(path.join(kit, 'grafana/dashboards/signaling.json')))
const runbook = readFileSync(path.join(kit, 'README.md'), 'utf8')

const panels = dashboard.panels.filter(panel => panel.type !== 'row')
/** An expression as Grafana would send it. */
const filledIn = expression => expression.replaceAll('$__rate_interval', '5m').replaceAll('$instance', '.*')

describe('the rules', { skip: missing('promtool') }, () => {
  it('fire when they should and not before', async () => {
    await run('promtool', ['test', 'rules', path.join(kit, 'prometheus/signaling.rules.test.yml')])
    const alerts = [...readFileSync(rulesFile, 'utf8').matchAll(/- alert: (\w+)/g)].map(found => found[1])
    const tested = readFileSync(path.join(kit, 'prometheus/signaling.rules.test.yml'), 'utf8')
    assert.ok(alerts.length > 10)
    assert.deepEqual(alerts.filter(alert => !new RegExp(`alertname: ${alert}\\n +eval_time`).test(tested)), [], 'not seen firing')
  })

  it('and the configuration are what Prometheus understands', async () => {
    await run('promtool', ['check', 'config', path.join(kit, 'prometheus/prometheus.yml')])
  })
})

describe('a real Prometheus', { skip: missing('prometheus'), timeout: 120_000 }, () => {
  let server, prometheus, url, rules, clients

  before(async () => {
    const at = folder()
    server = await ours.start({
      env: {
        SIGNALING_SIGNALING_PING_INTERVAL: '200ms', SIGNALING_ICE_STUN: 'stun:stun.example.com:3478',
        SIGNALING_RELAY_MODE: 'disk', SIGNALING_RELAY_DATA_DIR: path.join(at, 'rooms')
      }
    })
    const operator = (await server.line(/metrics on http:\/\/([^/]+)/))[1]
    const port = await freePort()
    // As shipped, but for where the server is and how often it is asked.
    const shipped = readFileSync(path.join(kit, 'prometheus/prometheus.yml'), 'utf8')
    const here = [['signaling:9464', operator], ['interval: 15s', 'interval: 250ms'], ['signaling.rules.yml', rulesFile]]
    writeFileSync(path.join(at, 'prometheus.yml'), here.reduce((text, [from, to]) => {
      assert.ok(text.includes(from), from)
      return text.replaceAll(from, to)
    }, shipped))
    prometheus = start('prometheus', [
      `--config.file=${at}/prometheus.yml`, `--storage.tsdb.path=${at}/data`, `--web.listen-address=127.0.0.1:${port}`, '--log.level=error'
    ])
    url = `http://127.0.0.1:${port}/api/v1`
    clients = await Promise.all([1, 2, 3].map(() => subscriber(server.url, 'plan')))
    await get(`${server.url.replace('ws', 'http')}/ice`)
    clients[0].publish('plan', 'line 3 is wrong')
    try {
      await until('what is scraped, and rules that were looked at twice', startMs, async () => (await query('count_over_time(signaling:open_files:ratio[1m]) > 2')).length > 0)
    } catch (error) {
      throw new Error(`${error.message}\n${prometheus.output()}`, { cause: error })
    }
    rules = (await api('/rules')).groups.flatMap(group => group.rules)
  })
  after(async () => {
    await stop(prometheus, 'SIGKILL')
    await server?.kill()
  })

  const api = async path => {
    const { status, data } = JSON.parse(await get(`${url}${path}`))
    assert.equal(status, 'success')
    return data
  }
  const query = async expression => (await api(`/query?query=${encodeURIComponent(expression)}`)).result
  const missingOf = async expressions => {
    const wanted = new Set(expressions.flatMap(selectors))
    const absent = []
    for (const selector of wanted) {
      if ((await api(`/series?match[]=${encodeURIComponent(selector)}`)).length === 0) absent.push(selector)
    }
    return { wanted: wanted.size, absent }
  }

  it('finds every rule healthy, and no alert on a server that is well', () => {
    assert.ok(rules.length > 20)
    for (const rule of rules) assert.deepEqual([rule.name, rule.health, rule.lastError], [rule.name, 'ok', undefined])
    assert.deepEqual(rules.filter(rule => rule.state === 'firing' || rule.state === 'pending').map(rule => rule.name), [])
  })

  it('has every series that a rule asks for', async () => {
    const { wanted, absent } = await missingOf(rules.map(rule => rule.query))
    assert.ok(wanted > 20)
    assert.deepEqual(absent, [])
  })

  it('has every series that a panel asks for, and each panel shows something', async () => {
    const expressions = panels.flatMap(panel => panel.targets.map(target => filledIn(target.expr)))
    const { wanted, absent } = await missingOf(expressions)
    assert.ok(wanted > 20)
    assert.deepEqual(absent, [])
    const empty = []
    for (const { title, targets } of panels) {
      const shown = await Promise.all(targets.map(target => query(filledIn(target.expr))))
      if (shown.every(result => result.length === 0)) empty.push(title)
    }
    assert.deepEqual(empty, [])
  })

  it('calls somebody when the server is gone', async () => {
    await server.kill()
    await until('the alert', startMs, async () => {
      const { alerts } = await api('/alerts')
      return alerts.some(alert => alert.labels.alertname === 'SignalingDown' && alert.labels.severity === 'page')
    })
  })
})

describe('the runbook', () => {
  const alerts = [...readFileSync(rulesFile, 'utf8').matchAll(/- alert: (\w+)[\s\S]*?runbook: (\S+)/g)]

  it('has a paragraph for each alert, and the alert leads to it', () => {
    assert.ok(alerts.length > 10)
    for (const [, alert, link] of alerts) {
      assert.equal(link, `deploy/README.md#${alert.toLowerCase()}`)
      const paragraph = new RegExp(`^#+ ${alert}\\n\\n([^#]+)`, 'm').exec(runbook)
      assert.ok(paragraph && paragraph[1].length > 100, `${alert}: the runbook does not say what to do`)
    }
  })
})

describe('the dashboard', () => {
  it('shows every panel in a place of its own, with a name', () => {
    assert.equal(new Set(dashboard.panels.map(panel => panel.id)).size, dashboard.panels.length)
    const taken = new Set()
    for (const { title, gridPos: { x, y, w, h } } of dashboard.panels) {
      assert.ok(title && x + w <= 24, title)
      for (let column = x; column < x + w; column++) {
        for (let line = y; line < y + h; line++) {
          assert.ok(!taken.has(`${column},${line}`), `${title} covers another panel`)
          taken.add(`${column},${line}`)
        }
      }
    }
  })

  it('names its data source by the variable, and the servers by theirs', () => {
    assert.deepEqual(dashboard.templating.list.map(variable => variable.name), ['datasource', 'instance'])
    for (const { title, targets } of panels) {
      for (const { datasource, expr } of targets) {
        assert.equal(datasource.uid, '${datasource}', title)
        for (const selector of selectors(filledIn(expr))) assert.match(selector, /job="signaling"/, title)
      }
    }
  })
})

/** The series that an expression asks for: one selector for each value that it lists as reason=~"this|that". */
function selectors (expression) {
  const found = []
  parser.parse(expression).iterate({
    enter (node) {
      assert.ok(!node.type.isError, `no PromQL: ${expression}`)
      if (node.name === 'VectorSelector') found.push(expression.slice(node.from, node.to))
    }
  })
  return found.flatMap(selector => {
    const list = /(\w+)=~"([\w|]+\|[\w|]+)"/.exec(selector)
    return list ? list[2].split('|').map(value => selector.replace(list[0], `${list[1]}="${value}"`)) : [selector]
  })
}
