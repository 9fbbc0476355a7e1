// An agent, as far as a review needs one: an MCP client, and the example `mcp_server` as its child over stdio.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'

const answerMs = 20_000

export class Agent {
  /** Starts `mcp_server` with these flags and introduces itself. What the server says on stderr goes to `told`. */
  static async start (program, flags, told = () => {}) {
    const transport = new StdioClientTransport({ command: program, args: flags, stderr: 'pipe' })
    transport.stderr.on('data', data => told(String(data)))
    const self = new Agent()
    self.client = new Client({ name: 'review', version: '1.0.0' })
    await self.client.connect(transport, { timeout: answerMs })
    self.pid = transport.pid
    return self
  }

  /** Calls a tool and gives its answer; rejects with what the server says if it refuses. */
  async call (name, given = {}, ms = answerMs) {
    const answer = await this.client.callTool({ name, arguments: given }, undefined, { timeout: ms })
    if (answer.isError) throw new Error(`${name}: ${answer.content.map(({ text }) => text).join(' ')}`)
    return answer.structuredContent
  }

  /** Ends the server as an agent's runner does: its standard input closes. */
  stop () { return this.client.close() }
}

/** A plan worth reviewing. */
export const plan = {
  title: 'Move search to the new index',
  steps: [
    { title: 'Read the old index beside the new one', text: 'Every query goes to both for a week. Only the old one answers; differences are logged.' },
    { title: 'Backfill in the background', text: 'Twelve million documents at 400 a second, paused whenever the database is behind.' },
    { title: 'Let one customer in ten use it', text: 'Behind a flag that is read at each request, so that turning it off needs no release.' },
    { title: 'Remove the old index', text: 'After two quiet weeks. The snapshot is kept for a month.' }
  ]
}
