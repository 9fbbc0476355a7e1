// The last line and the exit code of ./test, when cargo reports this or that. A stand-in plays cargo.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { it } from 'node:test'

const cargoPassed = 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s'
const cargoFailed = 'test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s'
const nextest = summary => `     \u001b[32mSummary\u001b[0m [   1.204s] ${summary}`

const cases = [
  ['tests of several crates are added up', { tests: [cargoPassed, cargoPassed] }, '6 passed, 0 failed', 0],
  ['a failed test fails the run', { tests: [cargoPassed, cargoFailed], code: 101 }, '5 passed, 1 failed', 1],
  ['a run of no tests is a failure', { tests: ['test result: ok. 0 passed; 0 failed;'] }, '0 passed, 1 failed', 1],
  ['a build that broke is a failure', { tests: ['error: could not compile'], code: 101 }, '0 passed, 1 failed', 1],
  ['a crash after the tests is a failure', { tests: [cargoPassed], code: 134 }, '3 passed, 1 failed', 1],
  ['nextest is understood', { nextest: [nextest('4 tests run: 4 passed, 0 skipped')] }, '4 passed, 0 failed', 0],
  ['nextest with a slow and a failed test', {
    nextest: [nextest('5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 7 skipped')], code: 100
  }, '3 passed, 2 failed', 1],
  ['examples in the documentation count too', {
    nextest: [nextest('1 test run: 1 passed, 0 skipped')], tests: [cargoPassed]
  }, '4 passed, 0 failed', 0]
]

for (const [name, { tests = [], nextest, code = 0 }, line, exit] of cases) {
  it(name, () => {
    const stage = mkdtempSync(path.join(tmpdir(), 'command-'))
    try {
      play(stage, 'cc', 'exit 0')
      play(stage, 'turnserver', 'exit 0')
      play(stage, 'cargo', `
        case "$1 $2" in
          "nextest --version") exit ${nextest ? 0 : 1} ;;
          "nextest run") cat <<'END'\n${(nextest ?? []).join('\n')}\nEND\nexit ${code} ;;
          "test --workspace") cat <<'END'\n${tests.join('\n')}\nEND\nexit ${nextest ? 0 : code} ;;
        esac`)
      const { stdout, status } = spawnSync(path.join(import.meta.dirname, '../test'), ['--only', 'rust'], {
        env: { ...process.env, PATH: `${stage}:${process.env.PATH}` }, encoding: 'utf8'
      })
      assert.equal(stdout.trimEnd().split('\n').at(-1), line, stdout)
      assert.equal(status, exit)
    } finally {
      rmSync(stage, { recursive: true })
    }
  })
}

function play (stage, name, script) {
  writeFileSync(path.join(stage, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
}
