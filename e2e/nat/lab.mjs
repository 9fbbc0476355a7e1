// A small internet of network namespaces, with the kernel's own NAT at every home.
//
//   server 203.0.113.10 ─┐
//   turn   203.0.113.20 ─┤ one public network
//   home a 203.0.113.101 ┤── 192.168.1.0/24, hosts a 192.168.1.2 and a2 192.168.1.3
//   home b 203.0.113.102 ┘── 192.168.2.0/24, host b 192.168.2.2
//
// Nothing in it has a link to the machine's own network.
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export const SERVER = '203.0.113.10'
export const TURN = '203.0.113.20'

/** Who lives in each home. */
const hosts = { a: ['a', 'a2'], b: ['b'] }
const homes = Object.keys(hosts)
const lineMs = 10_000
const tools = { ip: 'iproute2', nft: 'nftables', turnserver: 'coturn', openssl: 'openssl', python3: 'python3' }

/** What NATs do to a home's packets, as rules of its router; `wan` and `lan` are the router's sides. */
const kinds = {
  // An ordinary home router: the port is kept towards everybody, and answers come from whom was spoken to.
  cone: { postrouting: ['oifname wan masquerade'], forward: [] },
  // Another random port towards every peer: what STUN learns is of no use to anybody else.
  symmetric: { postrouting: ['oifname wan meta l4proto udp masquerade to :1024-65535 fully-random', 'oifname wan masquerade'], forward: [] },
  // A network that lets no UDP out.
  udpBlocked: { postrouting: ['oifname wan masquerade'], forward: ['meta l4proto udp drop'] },
  // A network that lets nothing but the web out.
  webOnly: { postrouting: ['oifname wan masquerade'], forward: ['meta l4proto udp drop', 'iifname lan tcp dport != { 80, 443 } drop'] }
}

/** Why this machine cannot have a lab, or undefined when it can. A tool that is missing is an error, not a reason. */
export function whyNot () {
  if (process.platform !== 'linux') return 'network namespaces are a thing of Linux'
  if (process.getuid() !== 0) return 'network namespaces need root'
  for (const [tool, debian] of Object.entries(tools)) {
    const found = process.env.PATH.split(':').some(folder => existsSync(path.join(folder, tool)))
    if (!found) throw new Error(`${tool} is missing: apt-get install ${debian}`)
  }
  const name = `nat-try-${process.pid}`
  try {
    run('ip', ['netns', 'add', name])
    run('ip', ['netns', 'exec', name, 'nft', '-f', '-'], rules(kinds.symmetric))
  } catch (error) {
    return `this machine may not make network namespaces with NAT: ${error.message}`
  } finally {
    try { run('ip', ['netns', 'del', name]) } catch { /* it was never made */ }
  }
}

let labs = 0

/** The namespaces, and what runs in them. `close` ends both. With `lines`, {@link Lab#line} says how the homes' lines are. */
export class Lab {
  constructor ({ lines = false } = {}) {
    this.prefix = `nat-${process.pid}-${++labs}`
    this.folder = mkdtempSync(path.join(os.tmpdir(), 'nat-'))
    this.children = new Set()
    this.lines = lines ? [] : undefined
    this.nodes = ['public', 'server', 'turn', ...homes.flatMap(home => [`router-${home}`, ...hosts[home]])]
    try {
      this.build()
    } catch (error) {
      this.close()
      throw error
    }
  }

  build () {
    run('ip', ['-batch', '-'], this.nodes.map(node => `netns add ${this.name(node)}`).join('\n'))
    for (const node of this.nodes) {
      const forward = node.startsWith('router-') ? 'echo 1 > /proc/sys/net/ipv4/ip_forward;' : ''
      this.exec(node, 'sh', '-c', `${forward} echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up`)
    }
    this.ip('public', 'link add bridge type bridge', 'link set bridge up')
    this.join('server', 'eth', `${SERVER}/24`)
    this.join('turn', 'eth', `${TURN}/24`)
    homes.forEach((home, index) => this.buildHome(home, index + 1))
  }

  buildHome (home, number) {
    const router = `router-${home}`
    this.join(router, 'wan', `203.0.113.${100 + number}/24`)
    this.ip(router, 'link add lan type bridge', `addr add 192.168.${number}.1/24 dev lan`, 'link set lan up')
    hosts[home].forEach((host, index) => {
      this.ip(router, `link add to-${host} type veth peer name eth netns ${this.name(host)}`,
        `link set to-${host} master lan up`)
      this.ip(host, `addr add 192.168.${number}.${2 + index}/24 dev eth`, 'link set eth up',
        `route add default via 192.168.${number}.1`)
    })
  }

  /** Joins a node to the public network. */
  join (node, device, address) {
    if (this.lines !== undefined && device === 'wan') this.lay(node, device)
    else this.ip('public', `link add to-${node} type veth peer name ${device} netns ${this.name(node)}`)
    this.ip('public', `link set to-${node} master bridge up`)
    this.ip(node, `addr add ${address} dev ${device}`, `link set ${device} up`)
  }

  /** Joins a node by a line that can be made slow and bad. */
  lay (node, device) {
    const child = spawn('ip', ['netns', 'exec', this.name('public'), 'python3', path.join(import.meta.dirname, 'line.py'),
      `to-${node}`, 'far'], { stdio: ['pipe', openSync(this.file(`line-${node}.log`), 'w'), 'inherit'] })
    this.children.add(child)
    this.lines.push(child)
    for (const end = Date.now() + lineMs; !this.log(`line-${node}.log`).includes('ready');) {
      if (Date.now() > end) throw new Error(`the line of ${node} is not there after ${lineMs} ms`)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
    }
    this.ip('public', `link set far name ${device} netns ${this.name(node)}`)
  }

  /** How the lines of both homes are from now on, each way: `delay` and `jitter` in milliseconds, `loss` in per cent. */
  line ({ delay = 0, jitter = 0, loss = 0 } = {}) {
    for (const { stdin } of this.lines) stdin.write(`delay ${delay} jitter ${jitter} loss ${loss}\n`)
  }

  /** Puts a NAT of this kind in front of both homes. */
  nat (kind) {
    for (const home of homes) run('ip', ['netns', 'exec', this.name(`router-${home}`), 'nft', '-f', '-'], rules(kinds[kind]))
  }

  name (node) { return `${this.prefix}-${node}` }
  file (name) { return path.join(this.folder, name) }
  log (name) { return existsSync(this.file(name)) ? readFileSync(this.file(name), 'utf8') : '' }
  ip (node, ...lines) { run('ip', ['-n', this.name(node), '-batch', '-'], lines.join('\n')) }
  /** What runs in a node, by process id. */
  pids (node) { return run('ip', ['netns', 'pids', this.name(node)]).split('\n').filter(Boolean).map(Number) }
  exec (node, ...command) { return run('ip', ['netns', 'exec', this.name(node), ...command]) }

  /** Starts a program in a node; what it says goes to `<name>.log` in the lab's folder. */
  spawn (node, name, command, env = {}) {
    const log = openSync(this.file(`${name}.log`), 'a')
    const child = spawn('ip', ['netns', 'exec', this.name(node), ...command],
      { stdio: ['ignore', log, log], env: { ...process.env, ...env } })
    this.children.add(child)
    return child
  }

  /** The path of a program that runs `command` in a node, for whoever can only start a program by its path. */
  launcher (node, command) {
    const file = this.file(`launch-${node}`)
    writeFileSync(file, `#!/bin/sh\nexec ip netns exec ${this.name(node)} ${command} "$@"\n`, { mode: 0o755 })
    return file
  }

  close () {
    for (const child of this.children) child.kill('SIGKILL')
    for (const node of this.nodes) {
      try { run('ip', ['netns', 'del', this.name(node)]) } catch { /* it was never made */ }
    }
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Waits until `check` returns something, and returns that. */
export async function until (what, ms, check) {
  for (const end = Date.now() + ms; ;) {
    const found = await check()
    if (found) return found
    if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

function rules ({ postrouting, forward }) {
  return `
    table ip home
    delete table ip home
    table ip home {
      chain postrouting { type nat hook postrouting priority srcnat;
        ${postrouting.join('\n')}
      }
      chain forward { type filter hook forward priority filter; policy drop;
        ${forward.join('\n')}
        iifname lan accept
        ct state established,related accept
      }
      # A peer's packet that comes before ours must not take the mapping that ours would get.
      chain input { type filter hook input priority filter;
        iifname wan meta l4proto { tcp, udp } drop
      }
    }`
}

function run (program, args, input) {
  try {
    return execFileSync(program, args, { input: input && input + '\n', encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] })
  } catch (error) {
    throw new Error(`${program} ${args.join(' ')}: ${(error.stderr || error.message).trim()}`)
  }
}
