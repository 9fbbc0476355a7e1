// @vitest-environment happy-dom
import { expect, it, vi } from 'vitest'
import { LoroDoc } from 'loro-crdt'
import { Peer } from '../src/index'
import type { Transport } from '../src/adapter'

it.each(['online', 'offline'])('asks what is connected to prove itself when the page says it is %s', async event => {
  const wake = vi.fn()
  const hub: Transport = {
    kind: 'hub', name: 'a hub', auth: new Uint8Array(),
    dial: door => {
      queueMicrotask(() => { door.open(1 << 18) })
      return { send: () => {}, wake, close: () => {} }
    }
  }
  const peer = new Peer({ room: 'plan', doc: new LoroDoc(), adapters: [hub], tabs: false })
  await peer.loaded
  await peer.waitUntil(({ links }) => links.some(({ up }) => up))
  wake.mockClear()
  window.dispatchEvent(new Event(event))
  expect(wake).toHaveBeenCalledOnce()
  await peer.close()
  window.dispatchEvent(new Event(event))
  expect(wake).toHaveBeenCalledOnce()
})
