import { MessageType, encode } from 'loro-protocol'
import { describe, expect, it } from 'vitest'
import { World } from './world'

describe('two peers over one link', () => {
  it('exchange what they had, and what they write, both ways', () => {
    const world = new World(1)
    const [ana, ben] = [world.node('ana'), world.node('ben')]
    ana.edit('a')
    ben.edit('b')
    world.join(ana, ben)
    world.run(500)
    expect(ana.text()).toBe(ben.text())
    expect([...ana.text()].sort().join('')).toBe('ab')
    ana.edit('c')
    world.run(50)
    expect(ben.text()).toContain('c')
    expect(ana.engine.isCaughtUp() && ben.engine.isCaughtUp()).toBe(true)
  })

  it('have a short document as soon as the one who has it is heard, and once', () => {
    for (const [length, earliest] of [[10, 20], [10_000, 60]] as const) {
      const world = new World(21)
      const [ana, ben] = [world.node('ana'), world.node('ben')]
      ana.edit(Array.from({ length }, () => world.dice.roll().toString(36)[0]).join(''))
      world.join(ana, ben)
      world.run(earliest - 1)
      expect(ben.text()).toBe('')
      world.run(2)
      expect(ben.text()).toBe(ana.text())
      world.run(500)
      expect(ana.engine.status().links[0]).toMatchObject({ holdsAll: true, unacknowledged: 0 })
      expect(ana.sent.bytes).toBeLessThan(1.5 * ana.doc.export({ mode: 'update' }).length + 200)
    }
  })

  it('acknowledge only what the disk holds', () => {
    const world = new World(2)
    const [ana, ben] = [world.node('ana'), world.node('ben')]
    world.join(ana, ben)
    world.run(500)
    ben.diskWorks = false
    ana.edit('x')
    world.run(2500)
    expect(ben.text()).toBe('x')
    expect(ben.engine.status().stored).toBe(false)
    expect(ana.engine.status().links[0]).toMatchObject({ holdsAll: false, unacknowledged: 1 })
    expect(ben.events).toContainEqual({ type: 'storeFailed' })
    ben.diskWorks = true
    world.run(5000)
    expect(ben.engine.status().stored).toBe(true)
    expect(ana.engine.status().links[0]).toMatchObject({ holdsAll: true, unacknowledged: 0 })
  })

  it('bring a long update over in fragments', () => {
    const world = new World(3)
    const [ana, ben] = [world.node('ana'), world.node('ben')]
    ana.edit('long '.repeat(100_000))
    let random = ''
    for (let n = 0; n < 40_000; n++) random += world.dice.roll().toString(36)
    ana.edit(random)
    world.join(ana, ben)
    world.run(5000)
    expect(ben.text()).toBe(ana.text())
    expect(ana.sent.frames).toBeGreaterThan(5)
    expect(ana.engine.status().links[0]).toMatchObject({ holdsAll: true, unacknowledged: 0 })
  })

  it('bring a document of a million operations over in several updates', () => {
    const world = new World(12)
    const [ana, ben] = [world.node('ana'), world.node('ben')]
    let random = ''
    while (random.length < 1_000_000) random += world.dice.roll().toString(36)
    ana.edit(random)
    const wire = world.join(ana, ben)
    for (let n = 0; n < 1000 && ben.text() === ''; n++) world.run(1)
    // What has arrived is kept when the link breaks.
    world.cut(wire)
    const arrived = ben.text().length
    const before = ana.sent.bytes
    world.run(100)
    world.join(ana, ben)
    world.run(5000)
    expect(ben.text()).toBe(ana.text())
    expect(arrived).toBeGreaterThan(100_000)
    expect(arrived).toBeLessThan(1_000_000)
    expect(ana.sent.bytes - before).toBeLessThan(900_000)
    for (const node of [ana, ben]) expect(node.engine.isCaughtUp()).toBe(true)
  })

  it('catch up after a link that broke in the middle of an update', () => {
    const world = new World(4)
    const [ana, ben] = [world.node('ana'), world.node('ben')]
    const wire = world.join(ana, ben)
    world.run(500)
    ana.edit('lost on the way')
    world.run(5)
    world.cut(wire)
    ben.edit('meanwhile ')
    world.run(500)
    expect(ben.text()).toBe('meanwhile ')
    world.join(ana, ben)
    world.run(500)
    expect(ben.text()).toBe(ana.text())
    expect(ben.text()).toContain('lost on the way')
  })

  it('say nothing but presence and an exchange of versions while nothing happens', () => {
    const world = new World(5)
    const [ana, ben] = [world.node('ana'), world.node('ben')]
    for (const node of [ana, ben]) node.show({ user: node.name, state: 1 })
    world.join(ana, ben)
    ana.edit('x')
    world.run(60_000)
    const before = ana.sent.bytes + ben.sent.bytes
    world.run(60_000)
    expect(ana.sent.bytes + ben.sent.bytes - before).toBeLessThan(2000)
  })

  it('tell the edits of the application apart from what came meanwhile', () => {
    const world = new World(6)
    const [ana, ben, cem] = [world.node('ana'), world.node('ben'), world.node('cem')]
    world.join(ana, ben)
    world.join(ben, cem)
    world.run(500)
    // Written, and not told by the time that somebody else's update comes.
    ben.doc.getText('t').push('mine ')
    ana.edit('theirs ')
    world.run(30)
    ben.tell({ type: 'edited' })
    world.run(30)
    expect(cem.text()).toContain('mine')
  })
})

describe('three peers who all know each other', () => {
  it('count as caught up when one has edited after it announced what another wrote', () => {
    for (let seed = 0; seed < 20; seed++) {
      const world = new World(seed)
      const [ana, ben, cem] = [world.node('ana'), world.node('ben'), world.node('cem')]
      world.join(ana, ben)
      world.join(ana, cem)
      world.join(ben, cem)
      world.run(1000)
      cem.edit('c')
      world.run(1000)
      ana.edit('a')
      world.run(1000)
      for (const node of [ana, ben, cem]) expect(node.engine.isCaughtUp()).toBe(true)
    }
  })
})

describe('strangers', () => {
  const frame = (crdt: '%LOR' | '%EPH', updates: Uint8Array[]): Uint8Array =>
    encode({ type: MessageType.DocUpdate, crdt, roomId: 'room', updates, batchId: '0x0000000000000001' })

  it('are let go when they speak another protocol', () => {
    const world = new World(1)
    const [ana, eve] = [world.node('ana'), world.node('eve')]
    world.join(ana, eve)
    ana.tell({ type: 'frame', link: 'tab 1', frame: Uint8Array.of(0, 1, 2) })
    expect(ana.events).toContainEqual({ type: 'ended', link: 'tab 1', reason: 'foreign' })
  })

  it('end their own link with garbage, and nothing else', () => {
    const world = new World(2)
    const [ana, ben, eve] = [world.node('ana'), world.node('ben'), world.node('eve')]
    world.join(ana, ben)
    world.join(ana, eve)
    world.run(500)
    for (let n = 0; n < 40; n++) ana.tell({ type: 'frame', link: 'tab 2', frame: frame('%LOR', [Uint8Array.of(1, 2, 3)]) })
    expect(ana.events).toContainEqual({ type: 'ended', link: 'tab 2', reason: 'garbage' })
    ben.edit('still here')
    world.run(500)
    expect(ana.text()).toBe('still here')
  })

  it('cannot break a peer with any flipped byte of a whole conversation', () => {
    const world = new World(3)
    const [ana, ben] = [world.node('ana'), world.node('ben')]
    const frames: Uint8Array[] = []
    const tell = ben.tell.bind(ben)
    ben.tell = input => {
      if (input.type === 'frame') frames.push(input.frame)
      tell(input)
    }
    ana.edit('hello')
    ana.show({ user: 'ana', state: { step: 1 } })
    ben.show({ user: 'ben', state: 2 })
    world.join(ana, ben)
    world.run(500)
    ana.edit('x')
    world.run(500)
    expect(frames.length).toBeGreaterThan(3)
    for (const frame of frames) {
      for (let at = 0; at < frame.length; at++) {
        const damaged = frame.slice()
        damaged[at]! ^= 0x55
        const strange = new World(at)
        const [cem, eve] = [strange.node('cem'), strange.node('eve')]
        strange.join(cem, eve)
        strange.run(300)
        cem.tell({ type: 'frame', link: 'tab 1', frame: damaged })
        cem.tell({ type: 'frame', link: 'tab 1', frame: frame.subarray(0, at) })
        cem.edit('fine')
        expect(cem.text()).toContain('fine')
      }
    }
  })

  it('may claim any length of a fragmented update without costing more than a refusal', () => {
    const world = new World(4)
    const [ana, eve] = [world.node('ana'), world.node('eve')]
    world.join(ana, eve)
    world.run(500)
    const header = (fragmentCount: number, totalSizeBytes: number): Uint8Array =>
      encode({ type: MessageType.DocUpdateFragmentHeader, crdt: '%LOR', roomId: 'room', batchId: '0x0000000000000009', fragmentCount, totalSizeBytes })
    for (const [count, size] of [[0, 0], [1, 0], [2 ** 31, 2 ** 31], [5000, 6000], [1, 33 << 20]] as const) {
      ana.tell({ type: 'frame', link: 'tab 1', frame: header(count, size) })
    }
    expect(ana.engine.status().links).toHaveLength(1)
    ana.tell({ type: 'frame', link: 'tab 1', frame: header(2, 10) })
    world.run(11_000)
    ana.edit('fine')
    expect(ana.text()).toBe('fine')
  })
})

describe('presence', () => {
  it('shows everybody to everybody, also past a third', () => {
    const world = new World(1)
    const nodes = ['ana', 'ben', 'cem'].map(name => world.node(name))
    const [ana, ben, cem] = nodes as [typeof nodes[0] & object, typeof nodes[0] & object, typeof nodes[0] & object]
    for (const node of nodes) node.show({ user: node.name, state: null })
    world.join(ana, ben)
    world.join(ben, cem)
    world.run(1000)
    expect(ana.sees()).toEqual(['ben', 'cem'])
    expect(cem.sees()).toEqual(['ana', 'ben'])
  })

  it('knows at once who leaves, and within five seconds who was killed', () => {
    const world = new World(2)
    const [ana, ben, cem] = [world.node('ana'), world.node('ben'), world.node('cem')]
    for (const node of [ana, ben, cem]) node.show({ user: node.name, state: null })
    world.join(ana, ben)
    world.join(ana, cem)
    world.run(1000)
    // Just after it has shown something else.
    ben.show({ user: 'ben', state: 1 })
    ben.tell({ type: 'close' })
    world.run(200)
    expect(ana.sees()).toEqual(['cem'])
    world.kill(cem)
    world.run(5000)
    expect(ana.sees()).toEqual([])
  })

  it('does not let one go whose link breaks while another holds', () => {
    const world = new World(3)
    const [ana, ben, cem] = [world.node('ana'), world.node('ben'), world.node('cem')]
    for (const node of [ana, ben, cem]) node.show({ user: node.name, state: null })
    const wire = world.join(ana, ben)
    world.join(ana, cem)
    world.join(ben, cem)
    world.run(1000)
    world.cut(wire)
    const seen = new Set<string>()
    for (let n = 0; n < 60; n++) {
      world.run(100)
      seen.add(ana.sees().join())
    }
    expect([...seen]).toEqual(['ben,cem'])
  })

  it('offers anew when signaling is back: what was offered meanwhile was heard by nobody', () => {
    for (let away = 1000; away <= 20_000; away += 500) {
      const world = new World(away)
      const [ana, ben] = [world.node('ana', 8), world.node('ben', 8)]
      for (const node of [ana, ben]) world.signalingUp(node)
      world.run(2000)
      ben.signaling = false
      for (const wire of world.wiresBetween(ana, ben)) world.cut(wire)
      world.run(away)
      world.signalingUp(ben)
      world.run(1500)
      expect([away, ...world.channelsOf(ana)]).toEqual([away, 'ben'])
    }
  })

  it('keeps who hides the page for ten minutes, by way of whom it is shown to: browsers wake hidden pages once a minute', () => {
    const world = new World(5)
    const [ana, ben, cem] = [world.node('ana'), world.node('ben'), world.node('cem')]
    for (const node of [ana, ben, cem]) node.show({ user: node.name, state: null })
    world.join(ana, ben)
    world.join(ana, cem)
    world.run(1000)
    ben.isHidden = cem.isHidden = true
    const seen = new Set<string>()
    for (let second = 0; second < 600; second++) {
      world.run(1000)
      seen.add(ana.sees().join())
    }
    expect([...seen]).toEqual(['ben,cem'])
    ben.isHidden = cem.isHidden = false
    world.kill(cem)
    world.run(5000)
    expect(ana.sees()).toEqual(['ben'])
  })

  it('brings one back who was declared gone by mistake', () => {
    const world = new World(4)
    const [ana, ben] = [world.node('ana'), world.node('ben')]
    for (const node of [ana, ben]) node.show({ user: node.name, state: null })
    world.latency = 2000
    world.join(ana, ben)
    world.run(9000)
    ana.tell({ type: 'quiet', link: 'tab 1' })
    world.run(1000)
    expect(ana.sees()).toEqual([])
    world.run(8000)
    expect(ana.sees()).toEqual(['ben'])
  })
})

describe('a mesh', () => {
  it('makes one channel between two that hear of each other, whoever offers', () => {
    for (let seed = 0; seed < 20; seed++) {
      const world = new World(seed)
      const [ana, ben] = [world.node('ana', 8), world.node('ben', 8)]
      world.signalingUp(ana)
      world.signalingUp(ben)
      world.run(3000)
      expect(world.channelsOf(ana)).toEqual(['ben'])
      expect(world.channelsOf(ben)).toEqual(['ana'])
      ana.edit('x')
      world.run(100)
      expect(ben.text()).toBe('x')
    }
  })

  it('converges with twelve peers of three channels each', () => {
    const world = new World(7)
    const nodes = Array.from({ length: 12 }, (_, n) => world.node(`peer ${n}`, 3))
    for (const node of nodes) {
      node.show({ user: node.name, state: null })
      world.signalingUp(node)
      world.run(200)
    }
    world.run(20_000)
    for (const node of nodes) node.edit(`${node.name} `)
    world.run(5000)
    for (const node of nodes) {
      expect(node.text()).toBe(nodes[0]!.text())
      expect(node.sees()).toHaveLength(11)
      expect(world.channelsOf(node).length).toBeLessThanOrEqual(3)
    }
  })

  it('goes on without signaling, and finds a newcomer when it is back', () => {
    const world = new World(8)
    const [ana, ben] = [world.node('ana', 8), world.node('ben', 8)]
    for (const node of [ana, ben]) world.signalingUp(node)
    world.run(3000)
    ana.signaling = ben.signaling = false
    ana.edit('without ')
    world.run(1000)
    expect(ben.text()).toBe('without ')
    const cem = world.node('cem', 8)
    for (const node of [ana, ben, cem]) world.signalingUp(node)
    world.run(5000)
    expect(cem.text()).toBe('without ')
  })

  it('makes no channel to another tab of this browser', () => {
    const world = new World(9)
    const [ana, ben] = [world.node('ana', 8), world.node('ben', 8)]
    world.join(ana, ben)
    for (const node of [ana, ben]) world.signalingUp(node)
    world.run(10_000)
    expect([...ana.channels, ...ben.channels]).toEqual([])
    ana.edit('x')
    world.run(100)
    expect(ben.text()).toBe('x')
  })
})
