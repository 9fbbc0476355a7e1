// A machine of its own with the real systemd as its first process, in a container that has this system's /usr and
// nothing else. It shares the network, so a test reaches what listens there.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { folder, missing, run, start, until } from './processes.mjs'

const bootMs = 20_000

/** Why no such machine can be started here; false if it can. */
export function whyNot () {
  if (process.getuid() !== 0) return 'systemd-nspawn needs root'
  return missing('systemd-nspawn', 'nsenter')
}

export class Machine {
  /** `files` are put where they say, by path; `shared` is a folder or file of this machine that is seen at a path. */
  static async boot (files, shared) {
    const self = new Machine()
    self.folder = folder()
    mkdirSync(self.file('etc'))
    const binds = Object.entries(shared).map(([inside, outside]) => `--bind-ro=${outside}:${inside}`)
    for (const [name, content] of Object.entries({ ...files, '/etc/systemd/system/booted.target': '[Unit]\nDefaultDependencies=no\n' })) {
      const kept = self.file('etc', name.replaceAll('/', '_'))
      writeFileSync(kept, content)
      binds.push(`--bind-ro=${kept}:${name}`)
    }
    self.name = `e2e-${process.pid}-${path.basename(self.folder).slice(3)}`
    self.container = start('systemd-nspawn', [
      '--directory=/', '--volatile=yes', '--boot', '--register=no', '--keep-unit', '--console=pipe', '--quiet',
      `--machine=${self.name}`, ...binds,
      '--', '--unit=booted.target'
    ])
    self.init = await until('a first process', bootMs, () => firstProcess(self.container.pid))
    await until('systemd up', bootMs, () => self.systemctl('is-active', 'booted.target'))
    return self
  }

  file (...names) { return path.join(this.folder, ...names) }

  /** Runs a program inside, to its end. */
  run (...command) {
    return run('nsenter', [`--target=${this.init}`, '--mount', '--uts', '--ipc', '--pid', '--cgroup', '--root', '--wd', ...command])
  }

  systemctl (...parameters) { return this.run('systemctl', '--no-pager', ...parameters) }

  /** One property of a unit. */
  async show (unit, property) { return (await this.systemctl('show', unit, '--value', '-p', property)).trim() }

  /** What a unit has said since the machine started. */
  journal (unit) { return this.run('journalctl', '--no-pager', '--output=cat', `--unit=${unit}`) }

  async stop () {
    this.container.kill('SIGKILL')
    await this.container.exited
    // Its processes are gone with the first of them.
    if (this.init) {
      try { process.kill(this.init, 'SIGKILL') } catch { /* It went with the container. */ }
    }
    // What a container that was killed leaves behind.
    rmSync(`/run/systemd/nspawn/propagate/${this.name}`, { recursive: true, force: true })
  }
}

/** The process that the container's own process has started. */
function firstProcess (parent) {
  for (const task of readdirSync(`/proc/${parent}/task`)) {
    const children = readFileSync(`/proc/${parent}/task/${task}/children`, 'utf8').trim().split(' ').filter(Boolean)
    for (const child of children) {
      const name = readFileSync(`/proc/${child}/comm`, 'utf8').trim()
      if (name === 'systemd') return Number(child)
      const below = firstProcess(child)
      if (below) return below
    }
  }
}

/** What `systemd-analyze` says; throws where it finds fault. */
export function analyze (...parameters) {
  return execFileSync('systemd-analyze', ['--no-pager', ...parameters], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 20_000 })
}
