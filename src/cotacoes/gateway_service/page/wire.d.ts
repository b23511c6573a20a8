// The messages of the gateway, as types for the check alone: this file is not served.
// docs/asyncapi.yaml and docs/reference/routes.md describe them.

/** A plain decimal, kept as text. */
type Decimal = string;
/** RFC 3339, UTC. */
type Time = string;
/** EPOCH-SEQ. */
type Position = string;

interface Quote {
  type: "quote";
  coin: string;
  currency: string;
  price: Decimal;
  epoch: number;
  seq: number;
  observed_at: Time;
  at: Time;
  origin: string;
  prev: Position | null;
  state?: "agreed" | "thin";
  confidence?: Decimal;
  used?: number;
  of?: number;
}
interface Gap {
  type: "gap";
  coin: string;
  after: Position | null;
  through: Position | null;
  reason: "gone" | "hole" | "rewritten" | "retracted" | "lost";
}
interface Begun {
  recovered: boolean;
  position: Position | null;
}
interface Subscribed {
  type: "subscribed";
  id: string | null;
  coins: Record<string, Begun>;
}
interface Heartbeat {
  type: "heartbeat";
  sent_at: Time;
  coins: Record<string, Position | null>;
  silent: string[];
}
interface Bye {
  type: "bye";
  reason: string;
  retry_ms: number;
}
interface Refusal {
  type: "error";
  id: string | null;
  op: string | null;
  problem: { title: string; detail: string; status: number };
}
/** The whole status, or what changed of it; an entry that is gone is null. */
interface StatusFrame extends Partial<Omit<Status, "services" | "shards" | "coins">> {
  type: "status";
  generated_at: Time;
  services?: Record<string, Part | null>;
  shards?: Record<string, Part | null>;
  coins?: Record<string, Coin | null>;
}
type Frame = Quote | Gap | Subscribed | Heartbeat | Bye | Refusal | StatusFrame | { type: "pong" | "unsubscribed" };

type UpState = "up" | "away" | "unknown";
type BreakerState = "closed" | "open" | "half_open" | "forced_open" | "disabled" | "metrics_only";

interface Transition {
  at: Time;
  from: BreakerState;
  to: BreakerState;
  reason: string;
}
interface Breaker {
  name: string;
  state: BreakerState;
  generation: number;
  retry_after_s: number | null;
  is_awaited: boolean;
  next_call: "made" | "probe" | "refused";
  window: { calls: number; failures: number; slow_calls: number; failure_rate: number | null };
  consecutive_failures: number;
  not_permitted: number;
  last_errors: { at: Time; error: string }[];
  transitions: Transition[];
}
interface Part {
  state: UpState;
  since: Time;
  known_at: Time | null;
  reason: string | null;
  breakers?: Breaker[];
}
interface Coin {
  symbol: string;
  title: string;
  currency: string | null;
  decimals: number;
  shard: string | null;
  position: Position | null;
  through: Position | null;
  pending: number | null;
  /** Why its quotes do not get to the shard. */
  held?: string | null;
  /** Whether the last poll of the source brought its newest quote. */
  source?: "live" | "cache" | null;
  first: { position: Position; at: Time } | null;
}
interface VenueBook {
  venue: string;
  currency: string;
  used: boolean;
  reason: string | null;
  bid: Decimal | null;
  ask: Decimal | null;
  mid: Decimal | null;
  mid_usd: Decimal | null;
  rate: Decimal | null;
  as_of: Time | null;
  age_ms: number | null;
}
interface Consensus {
  coin: string;
  state: "agreed" | "thin" | "disputed" | "none";
  reason: string | null;
  used: number;
  of: number;
  price: Decimal | null;
  confidence: Decimal | null;
  low: Decimal | null;
  high: Decimal | null;
  age_ms: number | null;
  venues: VenueBook[];
}
interface Venues {
  known_at: Time | null;
  feeds: { venue: string; state: string; closed_text: string | null }[];
  rates: Record<string, Decimal>;
  coins: Consensus[];
}
interface FaultSetting {
  error_rate?: number;
  status?: number[];
  latency_ms?: number;
  jitter_ms?: number;
  retry_after_s?: number | null;
  kinds?: Record<string, number>;
  coins?: string[];
  for_s?: number | null;
  /** Of an exchange, or of the market of all. */
  [further: string]: unknown;
}
interface FaultsInForce {
  known_at: Time | null;
  setting: FaultSetting | null;
  venues: Record<string, FaultSetting>;
  market: FaultSetting;
}
interface Branch {
  branch: string;
  status: string;
  start_ms: number;
  elapsed_ms: number;
  attempts: number;
  reason: string | null;
}
interface Report {
  known_at: Time | null;
  generated_at: Time;
  deadline_ms: number;
  elapsed_ms: number;
  complete: boolean;
  missing: { part: string; reason: string }[];
  trace: Branch[];
}
interface Status {
  generated_at: Time;
  limits: { fresh_ms: number; age_max_ms: number; stream_coins_max?: number };
  source: "sim" | "replay" | "venues" | "exchanges";
  services: Record<string, Part>;
  shards: Record<string, Part>;
  coins: Record<string, Coin>;
  venues: Venues | null;
  faults: FaultsInForce | null;
  report: Report | null;
}
interface CandleJson {
  at: Time;
  open: Decimal | null;
  high: Decimal | null;
  low: Decimal | null;
  close: Decimal | null;
  count: number;
  closed: boolean;
}
interface CandlesPage {
  coin: string;
  currency: string;
  origin: string;
  interval: string;
  candles: CandleJson[];
  through: Position;
}
