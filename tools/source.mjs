// Reads the sources of this repository as the invariants look at them: without comments, strings or tests.
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'

const skipped = /^(\.git|node_modules|target|target-.*|dist|corpus|artifacts)$/

/** Every file below `root` as `{ path, text }`, with paths relative to it; built and fetched things left out. */
export function * files (root, below = '') {
  for (const entry of readdirSync(path.join(root, below), { withFileTypes: true })) {
    const name = path.posix.join(below, entry.name)
    if (entry.isDirectory() && !skipped.test(entry.name)) yield * files(root, name)
    if (entry.isFile()) {
      yield { path: name, get text () { return readFileSync(path.join(root, name), 'utf8') } }
    }
  }
}

const token = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|\br(#*)"[\s\S]*?"\1|"(?:\\[\s\S]|[^"\\])*"|'(?:\\u\{[^}]*\}|\\.|[^'\\\n])'/g

/** Rust without its comments; lines and columns stay where they were. */
export function withoutComments (rust) {
  return rust.replace(token, found => found.startsWith('/') ? blank(found) : found)
}

/** Rust without its comments and without what its strings say. */
export function withoutStrings (rust) {
  return rust.replace(token, found => found.startsWith('/') ? blank(found) : found[0] + blank(found.slice(1, -1)) + found.at(-1))
}

/** Rust from which the modules under `#[cfg(test)]` have been cut; what stands before them stays where it was. */
export function withoutTests (rust) {
  const code = withoutStrings(rust)
  let kept = rust
  for (const found of code.matchAll(/#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?mod\s+\w+\s*\{/g)) {
    const end = closing(code, found.index + found[0].length - 1)
    kept = kept.slice(0, found.index) + blank(rust.slice(found.index, end)) + kept.slice(end)
  }
  return kept
}

/** Where the bracket that opens at `start` of `code` has been closed. */
export function closing (code, start) {
  let depth = 0
  for (let i = start; i < code.length; i++) {
    if ('([{'.includes(code[i])) depth++
    if (')]}'.includes(code[i]) && --depth === 0) return i + 1
  }
  return code.length
}

/** The line, counted from 1, at an offset of `text`. */
export function lineAt (text, offset) {
  return text.slice(0, offset).split('\n').length
}

function blank (text) {
  return text.replace(/[^\n]/g, ' ')
}
