/**
 * imroute for browsers. Every node serves the module and these types on its WebSocket port:
 *
 *     import { Client } from "http://127.0.0.1:7902/v1/imroute.js";
 *     const c = new Client({ addrs: ["127.0.0.1:7902"], client: "alice" });
 *     c.on("message", (m) => console.log(m.from, m.text));
 *     await c.connect();
 *     await c.send("bob", "hello", { ack: "client" });
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
/** A message to a service that is sent again after a lost connection may be carried out twice. */
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
  /** In a group no more without having asked for it: closed, or refused after a reconnect. */
  left: { group: string; error: ImrouteError };
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
  /** Rejects with an ImrouteError unless it was delivered. With ack `none` it resolves once the message is taken. */
  send(to: string, payload?: string | Uint8Array | ArrayBuffer, options?: SendOptions): Promise<Result>;
  /** Resolves once the cluster knows; the client stays a member over reconnects, until `leave`. */
  join(group: string): Promise<void>;
  leave(group: string): Promise<void>;
  /** Sends a frame of any type under an id of its own and resolves with its result frame. Not repeated over reconnects. */
  request(frame: { type: string; [field: string]: unknown }, options?: { timeout?: number }): Promise<{ code: number; reason: Reason; [field: string]: unknown }>;
  /** Logs in at another node and takes over from the present session once that holds; resolves with the node's name. */
  move(addr: string): Promise<string>;
  /** Says bye, lets what was queued leave, fails what is pending. Resolves when all has ended. */
  close(options?: { timeout?: number }): Promise<void>;
  /** `close` for a page that goes away: waits for nothing. */
  abandon(): void;
}
