/**
 * imroute for browsers. Every node serves the module and these types on its WebSocket port:
 *
 *     import { Client } from "http://127.0.0.1:7902/v1/imroute.js";
 *     const c = new Client({ addrs: ["127.0.0.1:7902"], client: "alice" });
 *     c.on("message", (m) => console.log(m.from, m.text));
 *     await c.connect();
 *     await c.send("bob", "hello", { ack: "client" });
 *     await c.watch(["bob"], (p) => console.log(p.client, p.online ? `online at ${p.node}` : "offline"));
 *     console.log((await c.request("clock", "now?", { kind: "service" })).text);
 *
 * A client keeps itself connected: a lost connection, a node that is drained or dies, an expired token lead to another login,
 * here or elsewhere as the code's class says, after a jittered pause. What waits for a result is sent again under its old
 * id, so it is not delivered twice. All times are milliseconds. 64-bit numbers are decimal strings.
 */

// codes begin: written from the table in mesh/wire/code.go by `go test ./node/web -run TestCodes -update`
export type Reason =
  | "none"
  | "delivered"
  | "offline"
  | "unavailable"
  | "timeout"
  | "unknown"
  | "overloaded"
  | "too_large"
  | "bad_request"
  | "out_of_order"
  | "forbidden"
  | "accepted"
  | "not_owner"
  | "rate_limited"
  | "joined"
  | "left"
  | "group_closed"
  | "bye"
  | "replaced"
  | "superseded"
  | "kicked"
  | "idle_timeout"
  | "draining"
  | "lease_lost"
  | "bad_token"
  | "token_expired"
  | "slow_reader"
  | "protocol_error"
  | "busy"
  | "already_online"
  | "login_timeout"
  | "bad_version"
  | "shutting_down"
  | "connection_lost"
  | "no_quorum"
  | "ok"
  | "not_leader"
  | "not_member"
  | "bad_incarnation"
  | "not_ready"
  | "refused"
  | "internal"
  | `code_${number}`;
// codes end

export type CodeClass = "final" | "retry-here" | "retry-elsewhere";
/** A message to a service goes to one instance and is never sent again: if its connection ends first, the outcome is `unknown`. */
export type Kind = "client" | "group" | "all" | "others" | "prefix" | "user" | "service";
export type Ack = "none" | "owner" | "client";

export const PROTOCOL_VERSION: number;
export const SUBPROTOCOL: string;
export const PATH: string;
/** Numbers by name: `codes.delivered`. */
export const codes: Readonly<Record<Reason, number>>;
export function codeName(code: number): string;
/** What to do about a code; one that this version does not know is `retry-elsewhere`. */
export function codeClass(code: number): CodeClass;

export interface Config {
  /** Client id to log in as, 1 to 255 bytes. */
  client: string;
  /** Nodes' WebSocket addresses, `host:port`, `ws://…` or `wss://…`, tried in this order until the first login, later in random order. Default: where the page came from. */
  addrs?: string[];
  /** Only honoured by nodes in development mode; otherwise the token says it. */
  tenant?: string;
  /** Shown at every login. */
  token?: string;
  /**
   * Asked for a token at every login instead, so that an expired one is replaced. What it throws counts as a failed login that
   * is tried again; an ImrouteError of class `final` ends the client.
   */
  tokenSource?: (options: { signal: AbortSignal }) => string | Promise<string>;
  /** Joined with the first login. */
  groups?: string[];
  /** Leaves acknowledging to `Message.ack`. Otherwise a message is acknowledged when its listeners have returned, and their promises are kept. */
  manualAck?: boolean;
  /** false: the client ends with its first session. */
  reconnect?: boolean;
  /**
   * Keeps time in a worker while the page is hidden, because browsers slow hidden pages' timers down to one a minute, which
   * costs the session. The worker is this file, so that must be its own file from the page's origin, and a Content-Security-
   * Policy must allow it (`worker-src 'self'`). Without it a hidden page may log in again now and then.
   */
  background?: boolean;
  /** How long a send waits for its result unless it says otherwise. Default 5000. */
  timeout?: number;
  /** Bounds making one connection. Default 3000. */
  dialTimeout?: number;
  /** Bounds one login, half of it while there are addresses not tried yet; a node that waits for a fence gets the time it names on top. Default 10000. */
  loginTimeout?: number;
  /** Bounds of the jittered exponential pause between logins. Default 50 and 5000. */
  backoffMin?: number;
  backoffMax?: number;
  /** Bytes of what was sent and is not yet answered or written; past it sends are `overloaded`. Default 4 MiB. */
  queueBytes?: number;
  /** Sends that wait for an answer; past it sends are `overloaded`. Default 4096. */
  maxInFlight?: number;
  /** For runtimes that lack some of it, and for tests. */
  environment?: Partial<Environment>;
}

export interface Environment {
  WebSocket: new (url: string, protocol: string) => unknown;
  /** Monotonic milliseconds. */
  now(): number;
  setTimeout(f: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  /** In [0, 1). */
  random(): number;
}

export interface SendOptions {
  /** What `to` names. Default `client`. */
  kind?: Kind;
  /** What to wait for: nothing, that the owner wrote it to the recipient's connection, that the recipient acknowledged it. Default `owner`. */
  ack?: Ack;
  timeout?: number;
  /** Gives up waiting; the message may arrive all the same. */
  signal?: AbortSignal;
}

export interface Result {
  code: number;
  reason: Reason;
  /** Of the message, among this client's. */
  id: string;
  /** The node that delivered it, if there is one. */
  node: string;
  /** Recipients reached, of a message to many. */
  count: number;
  /** How many others there were, of a message to many: they refused it, ended before they had it, or did not acknowledge it in time. */
  missed: number;
  /** Some of them, 16 at most. */
  missedIds: string[];
  text: string;
  rtt: number;
}

/** How something ended that did not succeed. Compare `code` or `reason`, never texts. */
export class ImrouteError extends Error {
  constructor(code: number, text?: string, options?: ErrorOptions);
  readonly code: number;
  readonly reason: Reason;
  readonly class: CodeClass;
  readonly text: string;
  /** Of a send. */
  result: Result | undefined;
}

/** The answer to a request that failed where it was handled. */
export class Fault extends Error {
  constructor(code: number, text?: string, options?: ErrorOptions);
  /** What requester and handler agree on, 1 to 4294967295; those below 100 are the SDKs'. */
  readonly code: number;
  readonly text: string;
}

/** Faults that the client itself answers with: the handler failed; more requests than it takes; it serves that no more. The last two did nothing. */
export const faults: Readonly<{ internal: 1; busy: 2; gone: 3 }>;

/** Used for the instance of requests to services; here because `crypto.subtle` is missing on plain http. */
export function sha256(bytes: Uint8Array): Uint8Array;

export type Payload = string | Uint8Array | ArrayBuffer;

export interface RequestOptions {
  /** What `to` names. Default `client`. */
  kind?: "client" | "service";
  /** For the answer to be here. Default: the client's `timeout`. */
  timeout?: number;
  /** Gives up waiting; it may be done all the same. */
  signal?: AbortSignal;
}

/** The answer to a request. */
export interface Reply {
  readonly from: string;
  /** Of the request, among this client's. */
  readonly id: string;
  readonly text: string;
  readonly bytes: Uint8Array;
  /** From the call to the answer. */
  readonly rtt: number;
}

/** What an instance of a service was asked. */
export interface Request {
  readonly service: string;
  readonly from: string;
  /** With id, names the request for ever. */
  readonly instance: string;
  readonly id: string;
  readonly text: string;
  readonly bytes: Uint8Array;
  /** Aborts when the requester waits no longer, and when the service or the client ends. */
  readonly signal: AbortSignal;
}

/**
 * Answers a request. What it throws is answered as it is if it is a Fault, otherwise as fault 1 with its text, and shown. undefined
 * is an empty answer.
 */
export type Handler = (request: Request) => Payload | void | Promise<Payload | void>;

/** Whether somebody is online. */
export interface Presence {
  readonly client: string;
  readonly online: boolean;
  /** Online: where. */
  readonly node: string;
  /** Rises with each session; offline: of the last one, "0" if not known. Compare as BigInt. */
  readonly epoch: string;
  /** Online: when the session began; null if not known. */
  readonly since: Date | null;
}

export interface Message {
  readonly from: string;
  readonly kind: Kind;
  readonly to: string;
  /** Of a message to a group. */
  readonly group: string;
  /** With id, names the message for ever. */
  readonly instance: string;
  readonly id: string;
  readonly epoch: string;
  readonly wantsAck: boolean;
  readonly text: string;
  readonly bytes: Uint8Array;
  /** Says that the message was dealt with, if its sender asked; needed only with `manualAck`. */
  ack(): void;
  /** Answers whoever sent this with `request`. What becomes of the answer is told to nobody. */
  reply(payload: Payload): void;
  /** `reply` for what failed: the requester's promise rejects with this Fault. */
  replyFault(code: number, text?: string): void;
}

export type State =
  | { kind: "connecting"; addr: string }
  /** The login was taken and waits until the id's former owner is fenced. */
  | { kind: "waiting"; addr: string; leftMs: number }
  | { kind: "connected"; addr: string; node: string; epoch: string }
  /** code says why; retrying: another login follows in about afterMs. */
  | { kind: "closed"; code: number; reason: Reason; text: string; retrying: boolean; afterMs: number };

export interface Events {
  /** In order, no message twice, none of a past epoch. */
  message: Message;
  state: State;
  /** In a group, or an instance of a service, no more without having asked for it: closed, or refused after a reconnect. The other one is "". */
  left: { group: string; service: string; error: ImrouteError };
  /** A watch that had begun was refused after a reconnect and has ended. */
  unwatched: { ids: string[]; friends: boolean; error: ImrouteError };
  /** A message with ack `none` that failed. */
  refused: Result;
  /** A frame of a type that this version does not know; it is also an event of its own type's name. */
  frame: { type: string; [field: string]: unknown };
}

/** One client id's connection to a cluster. */
export class Client {
  constructor(config: Config);
  readonly id: string;
  readonly state: State;
  readonly groups: string[];
  /** WebSocket URLs: those configured, then those that nodes told. */
  readonly addrs: string[];
  /** Messages without a result. */
  readonly pending: number;
  /** Fulfilled when the client has ended for good. `error` says why. */
  readonly done: Promise<void>;
  readonly error: ImrouteError | null;

  on<T extends keyof Events>(type: T, listener: (event: Events[T]) => unknown): () => void;
  on(type: string, listener: (frame: Events["frame"]) => unknown): () => void;

  /** Resolves at the first login that holds. Rejects when a node refuses for good, or signal aborts, which ends the client. */
  connect(options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Rejects with an ImrouteError unless it was delivered. With ack `none` it resolves once the message is taken. A payload that
   * is missing is a TypeError; "" is an empty one. Text travels as UTF-8: half a surrogate pair becomes U+FFFD. What is larger
   * than the cluster takes is refused as `too_large`, and nothing else is affected.
   */
  send(to: string, payload: Payload, options?: SendOptions): Promise<Result>;
  /** Resolves once the cluster knows; the client stays a member over reconnects, until `leave`. */
  join(group: string): Promise<void>;
  leave(group: string): Promise<void>;
  /**
   * Tells listener of each of ids whether it is online: first the present state, then every change, those of one id in order, with
   * epochs that never fall. Resolves, once the present states were told, with what ends it. A user's id without "/" is online
   * while any of his devices is. It goes on over reconnects. At most 1000 ids, together with those of other watches; rejects with an
   * ImrouteError if the cluster refuses.
   */
  watch(ids: string | Iterable<string>, listener: (p: Presence) => unknown): Promise<() => void>;
  /** `watch` for those whom the cluster's friend source names for this client, as it does now and after each reconnect. */
  watchFriends(listener: (p: Presence) => unknown): Promise<() => void>;
  /** Ends watching ids, whichever `watch` named them. */
  unwatch(ids: string | Iterable<string>): void;

  /**
   * Asks a client, which answers with `Message.reply`, or one instance of a service, and resolves with the answer. Only whoever was
   * asked can answer: the client, a device of the user, an instance that was given the request. Rejects with
   *   - a Fault: it was handled, and failed there;
   *   - an ImrouteError `offline`, `overloaded` or `unavailable`: nobody had it;
   *   - `timeout` or `unknown`: somebody may have done it, or may yet do it. A request to a service is never done twice.
   */
  request(to: string, payload: Payload, options?: RequestOptions): Promise<Reply>;
  /**
   * Makes this client an instance of a service, for capacity requests at a time (64), and resolves once the cluster knows. It
   * stays one over reconnects until the function that it resolves with is called: that waits until what is being handled is
   * answered, for timeout (3000) at most. Outside development mode a client may serve what its user id names.
   */
  serve(service: string, handler: Handler, options?: { capacity?: number }): Promise<(options?: { timeout?: number }) => Promise<void>>;
  /** Sends a frame of any type under an id of its own and resolves with its result frame. Not repeated over reconnects. */
  exchange(frame: { type: string; [field: string]: unknown }, options?: { timeout?: number }): Promise<{ code: number; reason: Reason; [field: string]: unknown }>;
  /** @deprecated `exchange` by its former name. */
  request(frame: { type: string; [field: string]: unknown }, options?: { timeout?: number }): Promise<{ code: number; reason: Reason; [field: string]: unknown }>;
  /** Logs in at another node and takes over from the present session once that holds; resolves with the node's name. */
  move(addr: string): Promise<string>;
  /** Says bye, lets what was queued leave, fails what is pending. Resolves when all has ended. */
  close(options?: { timeout?: number }): Promise<void>;
  /** `close` for a page that goes away: waits for nothing. */
  abandon(): void;
}
