// What the page needs stands in the fragment of its address, which a browser sends to no server.

export interface Address {
  room: string
  /** Hubs and relays. */
  hubs: string[]
  signaling: string[]
  ice: string[]
  password: string | undefined
}

export function readAddress (fragment: string): Address {
  const values = new URLSearchParams(fragment.replace(/^#/, '').replaceAll('+', '%2B'))
  return {
    room: values.get('room') ?? '',
    hubs: values.getAll('hub'),
    signaling: values.getAll('signal'),
    ice: values.getAll('ice'),
    password: values.get('password') ?? undefined
  }
}

export function writeAddress ({ room, hubs, signaling, ice, password }: Address): string {
  const values = [['room', room], ...hubs.map(hub => ['hub', hub]), ...signaling.map(url => ['signal', url]), ...ice.map(url => ['ice', url])]
  if (password !== undefined) values.push(['password', password])
  return `#${values.map(([name, value]) => `${name}=${encodeURIComponent(value ?? '')}`).join('&')}`
}

/** What others can use of it: a hub on this machine is nobody else's. */
export function shareable (address: Address): Address {
  return { ...address, hubs: address.hubs.filter(hub => !isLocal(hub)) }
}

export function isLocal (url: string): boolean {
  try {
    return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname)
  } catch {
    return true
  }
}
