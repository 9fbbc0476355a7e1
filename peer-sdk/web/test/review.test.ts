import { LoroDoc } from 'loro-crdt'
import { describe, expect, it } from 'vitest'
import { isLocal, readAddress, shareable, writeAddress } from '../examples/review/address'
import { type LinkState, Peer } from '../src/index'
import { annotate, readPlan, reply, resolve, takeBack, writeSample } from '../examples/review/plan'
import { agoWords, hubLine, hueOf, initials, isAlone, meshLine } from '../examples/review/words'

describe('a plan', () => {
  it('is read as it was written', () => {
    const doc = new LoroDoc()
    writeSample(doc)
    const id = annotate(doc, 's2', 'Ana', 'too slow')
    expect(reply(doc, id, 'Ben', 'why?')).toBe(true)
    resolve(doc, id, true)
    const plan = readPlan(doc.toJSON())
    expect(plan.steps.map(({ id }) => id)).toEqual(['s1', 's2', 's3', 's4'])
    expect(plan.annotations).toMatchObject([{ id, stepId: 's2', author: 'Ana', text: 'too slow', resolved: true, replies: [{ author: 'Ben', text: 'why?' }] }])
    expect(doc.toJSON().annotations[0]).toMatchObject({ step_id: 's2', resolved: true })
    takeBack(doc, id)
    expect(readPlan(doc.toJSON()).annotations).toEqual([])
    expect(reply(doc, id, 'Ben', 'too late')).toBe(false)
  })

  it('is made of what makes sense, whatever is in the document', () => {
    const good = { id: 'a', step_id: 'gone', author: 'x', text: 'y', at: 1 }
    const annotations = [null, 7, [], 'x', {}, { ...good, id: 7 }, { ...good, at: NaN }, { ...good, text: null }, { ...good, replies: 'x', resolved: 'yes' }, good, { ...good, id: 'b', text: 'z'.repeat(50_000), replies: [null, { author: 'x', text: 'r', at: 2 }, { author: 1 }] }]
    for (const document of [null, 7, [], 'x', {}, { plan: [], annotations: {} }, { plan: { title: 7, steps: 'x' }, annotations }]) {
      const plan = readPlan(document)
      expect(plan.steps).toEqual([])
      for (const { stepId } of plan.annotations) expect(stepId).toBe('')
    }
    const plan = readPlan({ plan: { title: 'T', steps: [{ id: 's', title: 't', text: 7 }, { id: 's', title: 'again' }, { id: '', title: 'x' }, { title: 'x' }] }, annotations })
    expect(plan.steps).toEqual([{ id: 's', title: 't', text: '' }])
    expect(plan.annotations.map(({ id, replies, resolved }) => [id, replies.length, resolved])).toEqual([['a', 0, false], ['b', 1, false]])
    expect(plan.annotations[1]?.text).toHaveLength(20_000)
  })
})

describe('a link', () => {
  it('carries any name and URL, and leaves out what is nobody else\'s', () => {
    const address = { room: 'a&b=c#"\'<> ü+%', hubs: ['ws://127.0.0.1:7450/?token=t', 'wss://relay.example/'], signaling: ['wss://s.example/?a=b&c', 'ws://t'], ice: ['https://s.example/ice'], password: 'p&q' }
    expect(readAddress(writeAddress(address))).toEqual(address)
    expect(shareable(address).hubs).toEqual(['wss://relay.example/'])
    expect(['ws://localhost:1', 'ws://[::1]:1', 'nonsense'].map(isLocal)).toEqual([true, true, true])
    expect(readAddress('#%')).toMatchObject({ room: '' })
  })
})

describe('words', () => {
  it('are found for any name and time', () => {
    expect([initials('Ana Ruiz'), initials(''), initials('  é '), initials('👩‍🚀 x')].map(text => text.length > 0)).toEqual([true, true, true, true])
    for (const at of [NaN, -1e20, 1e20, 0]) expect(agoWords(at, Date.now())).toBeTypeOf('string')
    expect(hueOf('x')).toBeLessThan(360)
  })

  it('count nobody as connected whose line went dead', () => {
    const link: LinkState = { link: 'channel 1', name: undefined, session: 'ben', up: true, joined: true, holdsAll: true, unacknowledged: 0, mayWrite: true, path: 'direct', roundTrip: 3, trouble: undefined }
    const status = { ...new Peer({ room: 'words', tabs: false }).status, links: [link] }
    const told = [[], ['ben']].map(gone => [meshLine(status, new Set(gone), true, 1).says, isAlone(status, new Set(gone))])
    expect(told).toEqual([
      [expect.stringContaining('Connected to one reviewer'), false],
      [expect.stringContaining('Nobody answers'), true]
    ])
  })

  it('say what may keep a page from elsewhere from a hub on this computer', () => {
    const hub = (name: string, isFromElsewhere: boolean): string => {
      const link: LinkState = { link: 'uplink 0', name, session: undefined, up: false, joined: false, holdsAll: false, unacknowledged: 0, mayWrite: true, path: undefined, roundTrip: undefined, trouble: 'cannot be reached' }
      return hubLine({ ...new Peer({ room: 'words', tabs: false }).status, links: [link] }, 1, isFromElsewhere).says
    }
    expect(hub('ws://127.0.0.1:7450/', true)).toContain('let the browser reach it')
    expect([hub('ws://127.0.0.1:7450/', false), hub('wss://relay.example/', true)].join()).not.toContain('let the browser')
  })
})
