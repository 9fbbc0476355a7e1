// @vitest-environment happy-dom
import { act, StrictMode, type ReactNode } from 'react'
import { createRoot } from 'react-dom/client'
import { renderToString } from 'react-dom/server'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Peer } from '../src/index'
import { useDocument, usePeer, usePresence, useStatus } from '../src/react'

interface Shown { name: string }
const made: Array<Peer<Shown>> = []
let rooms = 0
let root: ReturnType<typeof createRoot>

function Review ({ room, name }: { room: string, name: string }): ReactNode {
  const peer = usePeer(() => {
    const peer = new Peer<Shown>({ room, user: name, presence: { name } })
    made.push(peer)
    return peer
  }, [room, name])
  const status = useStatus(peer)
  const text = useDocument(peer, doc => doc.getText('t').toString())
  const { self, peers, online, set } = usePresence(peer)
  return (
    <div>
      <p id="text">{text ?? 'none'}</p>
      <p id="who">{`${self?.name ?? 'nobody'}, ${peers.map(({ shows }) => shows?.name).join()}, ${online}`}</p>
      <p id="loaded">{String(status.loaded)}</p>
      <button onClick={() => { set({ name: 'renamed' }) }} />
    </div>
  )
}

const shown = (id: string): string => document.getElementById(id)?.textContent ?? ''
const until = async (id: string, words: string): Promise<void> => {
  await vi.waitFor(async () => { await act(async () => { await new Promise(resolve => setTimeout(resolve, 10)) }); expect(shown(id)).toBe(words) }, { timeout: 5000 })
}

beforeEach(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  rooms++
  document.body.innerHTML = '<div id="root"></div>'
  root = createRoot(document.getElementById('root')!)
})
afterEach(async () => {
  await act(async () => { root.unmount() })
  await Promise.all(made.splice(0).map(async peer => { await peer.close() }))
})

describe('hooks', () => {
  it('draw what the document has and who is there, and what changes', async () => {
    const room = `react ${rooms}`
    const other = new Peer<Shown>({ room, user: 'ben', presence: { name: 'Ben' } })
    made.push(other)
    await act(async () => { root.render(<StrictMode><Review room={room} name="Ana" /></StrictMode>) })
    await until('who', 'Ana, Ben, 2')
    await until('loaded', 'true')
    other.doc.getText('t').insert(0, 'from Ben')
    other.doc.commit()
    await until('text', 'from Ben')
    await act(async () => { document.querySelector('button')?.click() })
    expect(shown('who')).toBe('renamed, Ben, 2')
    await vi.waitFor(() => { expect(other.presence.peers[0]?.shows?.name).toBe('renamed') })
    await other.close()
    await until('who', 'renamed, , 1')
  })

  it('close the peer with the component, and make another for another room', async () => {
    await act(async () => { root.render(<Review room={`react ${rooms}`} name="Ana" />) })
    await act(async () => { root.render(<Review room={`react ${rooms} b`} name="Ana" />) })
    expect(made).toHaveLength(2)
    await vi.waitFor(() => { expect(made[0]?.status.closed).toBe(true) }, { timeout: 5000 })
    expect(made[1]?.status.closed).toBe(false)
    await act(async () => { root.render(null) })
    await vi.waitFor(() => { expect(made[1]?.status.closed).toBe(true) }, { timeout: 5000 })
  })

  it('draw on a server, where there is no peer', () => {
    expect(renderToString(<Review room="server" name="Ana" />)).toContain('nobody, , 0')
    expect(made).toHaveLength(0)
  })
})
