// Documents in IndexedDB: a log of updates for each room, which now and then becomes one snapshot.
//
// Several tabs may write to one log. So a snapshot takes the place of what this tab has read or written, and of nothing
// else: what another tab has added stays until a peer that has read it makes room.

import type { Storage, Store } from '../adapter.js'

const UPDATES = 'updates'
const VERSION = 1
/** How long the browser may take to open the database, in milliseconds: another tab may hold it. */
const PATIENCE = 10_000
/** Another tab has changed the database, or is about to. */
const LATER = 'a later version of this page is open'

/** Keeps documents under this name in the browser. Where it gives no database, the peer goes on in memory, and says so. */
export function indexedDB (name: string): Storage {
  return {
    kind: 'storage',
    open: async room => new Log(await open(name), room)
  }
}

async function open (name: string): Promise<IDBDatabase> {
  const factory = (globalThis as { indexedDB?: IDBFactory }).indexedDB
  if (factory === undefined) throw new Error('this browser has no IndexedDB here')
  const request = factory.open(name, VERSION)
  request.onupgradeneeded = () => {
    request.result.createObjectStore(UPDATES, { keyPath: 'id', autoIncrement: true }).createIndex('room', 'room')
  }
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => { reject(new Error('IndexedDB does not open')) }, PATIENCE)
  })
  try {
    return await Promise.race([settled(request), late])
  } catch (error) {
    throw (error as Error).name === 'VersionError' ? new Error(LATER) : error
  } finally {
    clearTimeout(timer)
  }
}

interface Row { id: number, room: string, update: Uint8Array }

class Log implements Store {
  /** The rows that are in the document of this tab. */
  private readonly known: number[] = []
  /** Why nothing is written any more. */
  private over: string | undefined

  constructor (private readonly database: IDBDatabase, private readonly room: string) {
    // A later version of the page wants to change the database: ours is in its way.
    database.onversionchange = () => {
      this.over = LATER
      database.close()
    }
  }

  async load (): Promise<Uint8Array[]> {
    const store = this.database.transaction(UPDATES, 'readonly').objectStore(UPDATES)
    const rows = await settled(store.index('room').getAll(this.room) as IDBRequest<Row[]>)
    for (const { id } of rows) this.known.push(id)
    return rows.map(({ update }) => new Uint8Array(update))
  }

  async append (update: Uint8Array): Promise<void> {
    await this.write(() => {})(update)
  }

  async compact (snapshot: Uint8Array): Promise<void> {
    const before = this.known.splice(0)
    try {
      await this.write(store => { for (const id of before) store.delete(id) })(snapshot)
    } catch (error) {
      this.known.push(...before)
      throw error
    }
  }

  /** Does this and keeps the update, in one transaction. */
  private write (first: (store: IDBObjectStore) => void) {
    return async (update: Uint8Array): Promise<void> => {
      if (this.over !== undefined) throw new Error(this.over)
      // Strict: the answer is our word that closing the browser does not lose it.
      const transaction = this.database.transaction(UPDATES, 'readwrite', { durability: 'strict' })
      const store = transaction.objectStore(UPDATES)
      first(store)
      const request = store.add({ room: this.room, update }) as IDBRequest<number>
      await new Promise<void>((resolve, reject) => {
        transaction.oncomplete = () => { resolve() }
        transaction.onabort = transaction.onerror = () => { reject(transaction.error ?? request.error ?? new Error('IndexedDB gave up a write')) }
      })
      this.known.push(request.result)
    }
  }

  close (): void { this.database.close() }
}

async function settled<T> (request: IDBRequest<T>): Promise<T> {
  return await new Promise((resolve, reject) => {
    request.onsuccess = () => { resolve(request.result) }
    request.onerror = () => { reject(request.error ?? new Error('IndexedDB refused')) }
  })
}
