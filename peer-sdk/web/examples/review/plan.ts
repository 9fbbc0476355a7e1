// A plan under review, as it stands in the document: examples/PLAN.md of the peer SDK says what every program keeps to.
// Whatever is in the document may be a stranger's, so it is read as plain data, and what makes no sense is passed over.
import { LoroDoc, LoroList, LoroMap, LoroMovableList, LoroText } from 'loro-crdt'

export interface Step { id: string, title: string, text: string }
export interface Reply { author: string, text: string, at: number }
export interface Annotation { id: string, stepId: string, author: string, text: string, at: number, resolved: boolean, replies: Reply[] }
export interface Plan { title: string, steps: Step[], annotations: Annotation[] }

/** More than anybody reads; what is longer is cut when it is shown. */
const LONGEST = 20_000
const LONGEST_NAME = 60
/** More would make the page slow, not the review better. */
const MOST = 2000

type Fields = Record<string, unknown>

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value)
const list = (value: unknown): unknown[] => Array.isArray(value) ? value.slice(0, MOST) : []
const text = (value: unknown, most = LONGEST): string | undefined => typeof value === 'string' ? value.slice(0, most) : undefined
const time = (value: unknown): number | undefined => typeof value === 'number' && Number.isFinite(value) ? value : undefined

/** What can be shown of a document. An annotation for a step that is gone is shown with the plan. */
export function readPlan (document: unknown): Plan {
  const { plan, annotations } = isFields(document) ? document : {} as Fields
  const fields = isFields(plan) ? plan : {}
  const steps = unique(list(fields.steps).map(readStep))
  const ids = new Set(steps.map(({ id }) => id))
  const read = unique(list(annotations).map(readAnnotation)).map(annotation => ids.has(annotation.stepId) ? annotation : { ...annotation, stepId: '' })
  return { title: text(fields.title, 200) ?? '', steps, annotations: read }
}

function unique<T extends { id: string }> (items: Array<T | undefined>): T[] {
  const seen = new Set<string>()
  return items.filter((item): item is T => {
    if (item === undefined || seen.has(item.id)) return false
    seen.add(item.id)
    return true
  })
}

function readStep (step: unknown): Step | undefined {
  if (!isFields(step)) return undefined
  const id = text(step.id, 128)
  const title = text(step.title, 300)
  return id === undefined || id === '' || title === undefined ? undefined : { id, title, text: text(step.text) ?? '' }
}

function readAnnotation (annotation: unknown): Annotation | undefined {
  if (!isFields(annotation)) return undefined
  const [id, stepId] = [text(annotation.id, 128), text(annotation.step_id, 128)]
  const reply = readReply(annotation)
  if (id === undefined || id === '' || stepId === undefined || reply === undefined) return undefined
  const replies = list(annotation.replies).map(readReply).filter(reply => reply !== undefined)
  return { id, stepId, ...reply, resolved: annotation.resolved === true, replies }
}

function readReply (reply: unknown): Reply | undefined {
  if (!isFields(reply)) return undefined
  const [author, said, at] = [text(reply.author, LONGEST_NAME), text(reply.text), time(reply.at)]
  return author === undefined || said === undefined || at === undefined ? undefined : { author, text: said, at }
}

const annotationsOf = (doc: LoroDoc): LoroList => doc.getList('annotations')

/** Annotates a step, in one commit. The id of the annotation. */
export function annotate (doc: LoroDoc, stepId: string, author: string, said: string): string {
  const id = [...crypto.getRandomValues(new Uint8Array(8))].map(byte => byte.toString(16).padStart(2, '0')).join('')
  const annotation = annotationsOf(doc).pushContainer(new LoroMap())
  for (const [name, value] of Object.entries({ id, step_id: stepId, author, text: said, at: Date.now(), resolved: false })) annotation.set(name, value)
  annotation.setContainer('replies', new LoroList())
  doc.commit()
  return id
}

function find (doc: LoroDoc, id: string): { annotation: LoroMap, at: number } | undefined {
  const annotations = annotationsOf(doc)
  for (let at = 0; at < annotations.length; at++) {
    const annotation: unknown = annotations.get(at)
    if (annotation instanceof LoroMap && annotation.get('id') === id) return { annotation, at }
  }
  return undefined
}

/** Replies to an annotation. Whether it is still there. */
export function reply (doc: LoroDoc, id: string, author: string, said: string): boolean {
  const replies: unknown = find(doc, id)?.annotation.get('replies')
  if (!(replies instanceof LoroList)) return false
  replies.push({ author, text: said, at: Date.now() })
  doc.commit()
  return true
}

export function resolve (doc: LoroDoc, id: string, resolved: boolean): void {
  find(doc, id)?.annotation.set('resolved', resolved)
  doc.commit()
}

/** Takes an annotation back. */
export function takeBack (doc: LoroDoc, id: string): void {
  const found = find(doc, id)
  if (found !== undefined) annotationsOf(doc).delete(found.at, 1)
  doc.commit()
}

/** Makes a plan to try the page with. For whoever starts the room, and nobody else. */
export function writeSample (doc: LoroDoc): void {
  const plan = doc.getMap('plan')
  plan.set('title', 'Move search to the new index')
  const steps = plan.setContainer('steps', new LoroMovableList())
  const sample = [
    ['Read the old index beside the new one', 'Every query goes to both for a week. Only the old one answers; differences are logged with the query that made them.'],
    ['Backfill in the background', 'Twelve million documents at 400 a second, paused whenever the database is more than two seconds behind. About nine hours.'],
    ['Let one customer in ten use it', 'Behind the flag search.new-index. The flag is read at each request, so that turning it off needs no release.'],
    ['Remove the old index', 'After two quiet weeks. The snapshot is kept for a month.']
  ] as const
  sample.forEach(([title, said], at) => {
    const step = steps.insertContainer(at, new LoroMap())
    step.set('id', `s${at + 1}`)
    step.set('title', title)
    step.setContainer('text', new LoroText()).insert(0, said)
  })
  doc.commit()
}
