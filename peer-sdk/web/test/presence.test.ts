import { describe, expect, it } from 'vitest'
import { Dice } from '../src/engine/backoff'
import { joinEntries } from '../src/engine/entries'
import { Presence } from '../src/engine/presence'

describe('that we are still there', () => {
  /** When it is told within two minutes, in seconds, to a room with ben in it, to whom a channel leads or not. */
  function told (hasHub: boolean, direct: string | undefined): number[] {
    const presence = new Presence(0, 'us', 1_000_000)
    const dice = new Dice(1n)
    presence.present(0, 'here')
    const at: number[] = []
    for (let second = 0; second < 120; second++) {
      presence.receive(second * 1000, 'channel 1', direct, joinEntries([{ key: 'ben', value: 'there', stamp: second + 1 }]))
      if (presence.keepTime(second * 1000, hasHub, dice).changes.has('us')) at.push(second)
    }
    return at
  }
  const gaps = (at: number[]): number[] => at.slice(1).map((second, n) => second - (at[n] ?? 0))

  it('is told where a hub is, though a channel leads to everybody', () => {
    expect(gaps(told(true, 'ben'))).toEqual([14, 14, 14, 14, 14, 14, 14, 14])
  })

  it('is told seldom where there are channels alone, each time after another pause', () => {
    const pauses = gaps(told(false, undefined))
    expect(pauses.length).toBeGreaterThan(2)
    expect(new Set(pauses).size).toBeGreaterThan(1)
    for (const pause of pauses) expect(pause >= 20 && pause <= 31).toBe(true)
  })

  it('is not told where a channel leads to everybody', () => {
    expect(told(false, 'ben')).toEqual([0])
  })
})
