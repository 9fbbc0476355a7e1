// The encryption of y-webrtc's signaling: AES-256-GCM under a key made of password and room. Loaded by those who have a
// password.

import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'

const ALGORITHM = 'AES-GCM'
const ITERATIONS = 100_000
/** How deep values may lie in each other. Signals lie four deep. */
const DEPTH = 32
/** The longest sealed text that is looked at, in characters. */
const LONGEST = 256 << 10

/** What a password and a room's name make. */
export interface Cipher {
  /** Encrypts a value, as the text that stands in `data`. */
  seal: (value: unknown) => Promise<string>
  /** Decrypts what `seal` has made; `undefined` when it was made with another key, or is something else. */
  unseal: (text: string) => Promise<unknown>
}

/** `undefined` where this page may not use the browser's cryptography: it came over http, and not from this machine. */
export async function deriveCipher (password: string, room: string): Promise<Cipher | undefined> {
  const subtle = (crypto as { subtle?: SubtleCrypto }).subtle
  if (subtle === undefined) return undefined
  const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>
  const material = await subtle.importKey('raw', bytes(password), 'PBKDF2', false, ['deriveKey'])
  const stretched = { name: 'PBKDF2', salt: bytes(room), iterations: ITERATIONS, hash: 'SHA-256' }
  const key = await subtle.deriveKey(stretched, material, { name: ALGORITHM, length: 256 }, false, ['encrypt', 'decrypt'])
  return { seal: value => seal(key, value), unseal: text => unseal(key, text) }
}

async function seal (key: CryptoKey, value: unknown): Promise<string> {
  const iv = crypto.getRandomValues(new Uint8Array(12))
  const plain = encoding.createEncoder()
  encoding.writeAny(plain, value as Parameters<typeof encoding.writeAny>[1])
  const cipher = await crypto.subtle.encrypt({ name: ALGORITHM, iv }, key, encoding.toUint8Array(plain) as Uint8Array<ArrayBuffer>)
  const sealed = encoding.createEncoder()
  encoding.writeVarString(sealed, ALGORITHM)
  encoding.writeVarUint8Array(sealed, iv)
  encoding.writeVarUint8Array(sealed, new Uint8Array(cipher))
  let text = ''
  for (const byte of encoding.toUint8Array(sealed)) text += String.fromCharCode(byte)
  return btoa(text)
}

async function unseal (key: CryptoKey, text: string): Promise<unknown> {
  if (text.length > LONGEST) return undefined
  try {
    const sealed = decoding.createDecoder(Uint8Array.from(atob(text), character => character.charCodeAt(0)))
    if (decoding.readVarString(sealed) !== ALGORITHM) return undefined
    const iv = decoding.readVarUint8Array(sealed) as Uint8Array<ArrayBuffer>
    const cipher = decoding.readVarUint8Array(sealed) as Uint8Array<ArrayBuffer>
    const plain = await crypto.subtle.decrypt({ name: ALGORITHM, iv }, key, cipher)
    const value: unknown = decoding.readAny(decoding.createDecoder(new Uint8Array(plain)))
    return isShallow(value, DEPTH) ? value : undefined
  } catch {
    return undefined
  }
}

function isShallow (value: unknown, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return true
  return depth > 0 && Object.values(value).every(inner => isShallow(inner, depth - 1))
}
