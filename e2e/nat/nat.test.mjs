// Two browsers in two homes behind real NATs. What connects them is what /ice told them: credentials for the real
// coturn, which runs from a description that turn-config has rendered.
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { Lab, whyNot } from './lab.mjs'
import { connect, onlyStun } from './peer.mjs'
import { startServices } from './services.mjs'

const connectMs = 60_000
const hopelessMs = 15_000 // Who can connect does so within a second or two.
const reason = whyNot()

describe('two peers in two homes', { skip: reason, timeout: 300_000 }, () => {
  let lab, ana, ben

  before(async () => {
    lab = new Lab();
    [ana, ben] = await startServices(lab)
  })

  after(async () => {
    await Promise.all([ana?.close(), ben?.close()])
    lab?.close()
  })

  it('behind ordinary NATs connect directly: the lab lets through what a network lets through', async () => {
    lab.nat('cone')
    await connect(ana, ben, onlyStun(await ana.ice()))
    assert.ok(await ana.connects(connectMs))
    assert.notEqual((await ana.path()).split(' ')[0], 'relay')
  })

  it('behind symmetric NATs do not connect without TURN', async () => {
    lab.nat('symmetric')
    await connect(ana, ben, onlyStun(await ana.ice()))
    assert.equal(await ana.connects(hopelessMs), false)
    for (const { found } of [ana, ben]) assert.deepEqual([...found].sort(), ['host', 'srflx'], 'STUN itself did not work')
  })

  it('behind symmetric NATs connect through TURN with what /ice gave them', async () => {
    lab.nat('symmetric')
    await connect(ana, ben)
    assert.ok(await ana.connects(connectMs))
    await converse(ana, ben)
    const paths = [await ana.path(), await ben.path()]
    assert.ok(paths.includes('relay over udp'), `the paths are ${paths}`)
  })

  it('where UDP is blocked connect over TLS on port 443', async () => {
    lab.nat('webOnly')
    await connect(ana, ben)
    assert.ok(await ana.connects(connectMs))
    await converse(ana, ben)
    assert.deepEqual([await ana.path(), await ben.path()], ['relay over tls', 'relay over tls'])
  })
})

async function converse (ana, ben) {
  await ana.say('line 3 is wrong', connectMs)
  await ben.hears('line 3 is wrong', connectMs)
  await ben.say('fixed', connectMs)
  await ana.hears('fixed', connectMs)
}
