// Elements, made anew at each change, and poured into those that are there: so focus, selection and what is being typed stay.

type Child = Node | string | false | undefined
type Props = Record<string, string | number | boolean | undefined | ((event: never) => void)>

const handlers = new WeakMap<Element, Map<string, EventListener>>()

/** An element. `on…` are listeners, `key` tells it apart from its siblings, `false` and `undefined` leave an attribute out. */
export function h (tag: string, props: Props = {}, ...children: Child[]): HTMLElement {
  const element = document.createElement(tag)
  fill(element, props, children)
  return element
}

/** An element of a drawing. */
export function svg (tag: string, props: Props = {}, ...children: Child[]): Element {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag)
  fill(element, props, children)
  return element
}

function fill (element: Element, props: Props, children: Child[]): void {
  const listeners = new Map<string, EventListener>()
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') listeners.set(name.slice(2), value as EventListener)
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? '' : String(value))
  }
  if (listeners.size > 0) {
    handlers.set(element, listeners)
    for (const name of listeners.keys()) element.addEventListener(name, dispatch)
  }
  element.append(...children.filter((child): child is Node | string => child !== false && child !== undefined))
}

/** Looked up when it happens: an element that stays gets the listeners of its successor. */
function dispatch (this: Element, event: Event): void { handlers.get(this)?.get(event.type)?.call(this, event) }

const keyOf = (node: Node): string | null => node instanceof Element ? node.getAttribute('key') : null
const isSameKind = (a: Node, b: Node): boolean => a.nodeName === b.nodeName && keyOf(a) === keyOf(b)

/** Makes `old` like `fresh`, keeping the elements that are the same. */
export function pour (old: Node, fresh: Node): void {
  if (!(old instanceof Element) || !(fresh instanceof Element)) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue
    return
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name)
  for (const { name, value } of [...fresh.attributes]) if (old.getAttribute(name) !== value) old.setAttribute(name, value)
  const listeners = handlers.get(fresh)
  for (const name of listeners?.keys() ?? []) old.addEventListener(name, dispatch)
  if (listeners === undefined) handlers.delete(old)
  else handlers.set(old, listeners)
  let next = old.firstChild
  for (const child of [...fresh.childNodes]) {
    let match: ChildNode | null = next
    while (match !== null && !isSameKind(match, child)) match = match.nextSibling
    if (match === null) {
      old.insertBefore(child, next)
      continue
    }
    // What stands between them has no counterpart, or one that comes later and is moved there.
    if (match !== next && keyOf(child) === null) while (next !== null && next !== match) next = drop(next)
    else if (match !== next) old.insertBefore(match, next)
    pour(match, child)
    next = match.nextSibling
  }
  while (next !== null) next = drop(next)
}

function drop (node: ChildNode): ChildNode | null {
  const next = node.nextSibling
  node.remove()
  return next
}
