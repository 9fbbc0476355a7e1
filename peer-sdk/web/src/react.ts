// A peer in React: one for as long as a component is there, and what it knows as state.

import type { LoroDoc } from 'loro-crdt'
import { type DependencyList, useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react'
import type { Peer } from './peer.js'
import type { PresenceView } from './presence.js'
import { INITIAL, type Status } from './status.js'

const NOBODY: PresenceView<never> = { self: undefined, peers: [], online: 0 }
const nothing = (): void => {}
const noSubscription = (): (() => void) => nothing

/**
 * A peer that lives as long as the component, or until one of `deps` differs: then it is closed, and another one made.
 * `undefined` before the first effect, and so on a server.
 */
export function usePeer<P> (make: () => Peer<P>, deps: DependencyList): Peer<P> | undefined {
  const [peer, setPeer] = useState<Peer<P>>()
  useEffect(() => {
    const made = make()
    setPeer(made)
    return () => {
      setPeer(undefined)
      void made.close()
    }
  }, deps)
  return peer
}

/** How the peer is doing. */
export function useStatus (peer: Peer<never> | Peer | undefined): Status {
  const subscribe = useCallback((listener: () => void) => peer?.subscribe(listener) ?? nothing, [peer])
  const snapshot = (): Status => peer?.status ?? INITIAL
  return useSyncExternalStore(peer === undefined ? noSubscription : subscribe, snapshot, snapshot)
}

/**
 * What `select` makes of the document, again after each change. It is called with the document, which it must not change;
 * the component is drawn anew when what it returns is not equal, as JSON, to what it returned before.
 */
export function useDocument<T> (peer: Peer<never> | Peer | undefined, select: (doc: LoroDoc) => T): T | undefined {
  const last = useRef<{ doc: LoroDoc, json: string, value: T }>(undefined)
  const snapshot = (): T | undefined => {
    if (peer?.isOpen !== true) return undefined
    const value = select(peer.doc)
    const json = JSON.stringify(value)
    if (last.current?.doc !== peer.doc || last.current.json !== json) last.current = { doc: peer.doc, json, value }
    return last.current.value
  }
  const subscribe = useCallback((listener: () => void) => peer === undefined ? nothing : follow(peer, listener), [peer])
  return useSyncExternalStore(peer === undefined ? noSubscription : subscribe, snapshot, () => undefined)
}

/** Hears of every change of the document, and of the document itself where that is still promised. */
function follow (peer: Peer<never> | Peer, listener: () => void): () => void {
  if (peer.isOpen) return peer.doc.subscribe(listener)
  let end: (() => void) | undefined = nothing
  peer.loaded.then(() => {
    if (end === undefined) return
    end = peer.doc.subscribe(listener)
    listener()
  }, nothing)
  return () => {
    end?.()
    end = undefined
  }
}

/** Who is there, and what we show. */
export interface PresenceState<P> extends PresenceView<P> {
  /** Shows this to everybody in the room. Throws when it is larger than 4 KiB. */
  set: (value: P) => void
  /** Shows nothing more. */
  clear: () => void
}

/** `{ self, peers, online }` of the room, and the way to show something else. */
export function usePresence<P> (peer: Peer<P> | undefined): PresenceState<P> {
  const subscribe = useCallback((listener: () => void) => peer?.presence.subscribe(listener) ?? nothing, [peer])
  const snapshot = (): PresenceView<P> => peer?.presence.view ?? NOBODY
  const view = useSyncExternalStore(peer === undefined ? noSubscription : subscribe, snapshot, snapshot)
  const set = useCallback((value: P) => { peer?.presence.set(value) }, [peer])
  const clear = useCallback(() => { peer?.presence.clear() }, [peer])
  return { ...view, set, clear }
}
