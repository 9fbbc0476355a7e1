// Loro documents in step, in the browser: with a hub, the local disk, other tabs and other browsers, each as far as it is
// there.

export { broadcastChannel } from './adapter/tabs.js'
export { indexedDB } from './adapter/indexeddb.js'
export { websocket, UrlError, type WebSocketOptions } from './adapter/websocket.js'
export { webrtc, type WebRtcOptions } from './adapter/webrtc.js'
export type { Adapter, Mesh, PasswordProblem, Path, SignalingState, Storage, Store, Tabs, Transport, Door, Port } from './adapter.js'
export type { PresenceValue } from './engine/entries.js'
export type { LinkId, Reason, Refusal } from './engine/vocabulary.js'
export { MAX_ROOM, Peer, type PeerOptions, RoomNameError } from './peer.js'
export { Presence, type PresenceParser, PresenceTooLarge, type PresenceView, type Someone } from './presence.js'
export { isAcknowledged, type LinkState, type PeerEvent, type Status, type StorageState } from './status.js'
