// @ts-check
// The words of the page. Those that stand in index.html are English there, and Portuguese in `page`; the others are in
// `said`, in English and in Portuguese. `{0}` and so on are filled in.

/** @type {Record<string, string>} */
export const page = {
  skip: "Ir para os preços",
  tagline: "Um feed de preços de criptomoedas que você roda na sua máquina e pode tirar da tomada.",
  language: "Idioma",
  theme: "Cores",
  system: "do sistema",
  light: "claras",
  dark: "escuras",
  contents: "Nesta página",
  coins: "Preços",
  candles: "Candles",
  break: "Quebre",
  breaker: "Disjuntor",
  pubsub: "Publicar/assinar",
  sharding: "Sharding",
  gather: "Dispersar/reunir",
  log: "O que aconteceu",
  coin: "Moeda",
  price: "Preço",
  step: "Último passo",
  course: "Curso",
  change: "Variação",
  age: "Idade",
  state: "Estado",
  origin: "Origem",
  interval: "Intervalo",
  last10: "Os dez últimos candles",
  begins: "Início",
  open: "Abertura",
  high: "Máxima",
  low: "Mínima",
  close: "Fechamento",
  quotes: "Cotações",
  venues: "Corretoras",
  venuesText: "O preço é o que a maioria das corretoras confirma. A que mente, atrasa ou está só não é usada.",
  venue: "Corretora",
  book: "Livro",
  bid: "Compra",
  ask: "Venda",
  mid: "Meio, USD",
  spreadHead: "Spread",
  used: "Usada",
  noToken:
    "Estes botões pedem o token de administrador: abra o endereço que o “make up” mostra, terminado em #token=…",
  lasts: "Por",
  end: "Encerrar a falha",
  lie: "mentir 10 %",
  stall: "parar os livros",
  answers: "A fonte responde mal",
  prices: "A fonte diz preços errados",
  stopTitle: "Pare uma parte",
  stopText: "Rode um destes na pasta do sistema: “start” traz a parte de volta, “pause” a deixa travada.",
  part: "Parte",
  services: "Serviços",
  service: "Serviço",
  since: "Desde",
  reason: "Motivo",
  breakerText:
    "O que se vê aqui: uma fonte que não para de falhar é deixada em paz por um tempo e depois sondada. Nesse meio-tempo, os preços vêm do cache e envelhecem.",
  breakerFault: "Faça todo pedido falhar e veja a recuperação",
  docs: "Leia mais",
  tooMany: "falhas demais",
  waitOver: "fim da espera",
  succeed: "sondas passam",
  fail: "sondas falham",
  is_closed: "fechado",
  is_open: "aberto",
  is_half_open: "semiaberto",
  timeline: "As mudanças dele",
  breakers: "Todos os disjuntores",
  upstream: "Quem chama quem",
  nextCall: "Próxima chamada",
  calls: "Chamadas vistas",
  failures: "Falharam",
  slow: "Lentas",
  notMade: "Não feitas",
  error1: "Último erro",
  set: "Ajustar",
  pubsubText:
    "O que se vê aqui: toda cotação tem uma posição; por isso esta página sabe o que perdeu e o recebe em ordem, ou nomeia a lacuna.",
  cut: "Cortar minha conexão por 5 s",
  published: "Publicada",
  here: "Recebida aqui",
  count: "Cotações aqui",
  gaps: "Lacunas",
  feed: "Feed",
  shardingText:
    "O que se vê aqui: cada moeda fica em um banco de dados. Enquanto ele está fora, as cotações ficam pendentes; nenhuma se perde.",
  shard: "Shard",
  shardCoins: "Moedas",
  pending: "Pendentes",
  where: "Onde fica cada moeda",
  through: "Gravada até",
  gatherText:
    "O que se vê aqui: um relatório pergunta a todas as fontes de uma vez e deixa de fora a que perde o prazo. Trave um shard e veja a barra dele chegar à linha.",
  branch: "Perguntado",
  time: "Tempo",
  starts: "Início",
  length: "Duração",
  attempts: "Tentativas",
  allDocs: "Rotas e streams",
  times: "As horas são as do seu fuso; os dias começam à meia-noite UTC.",
};

/** @type {Record<string, [string, string]>} */
export const said = {
  connecting: ["connecting", "conectando"],
  live: ["live", "ao vivo"],
  late: ["late: nothing has come for 11 s", "atrasada: nada chega há 11 s"],
  offline: ["offline: the gateway cannot be reached", "fora do ar: não dá para alcançar o gateway"],
  paused: ["paused while nobody looks", "em pausa enquanto ninguém olha"],
  from_sim: ["Simulated prices, which no market has.", "Preços simulados, que nenhum mercado tem."],
  from_replay: ["Recorded prices, replayed.", "Preços gravados, reproduzidos."],
  from_venues: ["Simulated prices of simulated exchanges.", "Preços simulados de corretoras simuladas."],
  from_exchanges: ["Real prices of exchanges.", "Preços reais de corretoras."],
  unheard: ["Nothing is known of the parts since {0}.", "Nada se sabe das partes desde {0}."],
  allUp: ["All parts are up.", "Todas as partes estão no ar."],
  troubles: ["Not all is well: {0}.", "Nem tudo vai bem: {0}."],
  logCoin: ["{0} is kept on {1}", "{0} fica no {1}"],
  simulated: ["simulated", "simulado"],
  fresh: ["fresh", "atual"],
  stale: ["stale", "velho"],
  expired: ["too old", "velho demais"],
  none: ["no price yet", "ainda sem preço"],
  venuesUsed: ["{0} of {1} exchanges, ±{2}", "{0} de {1} corretoras, ±{2}"],
  thin: ["thin", "frágil"],
  agreed: ["agreed", "acordado"],
  disputed: ["disputed", "disputado"],
  in24h: ["{0} % in 24 h", "{0} % em 24 h"],
  sinceChange: ["{0} % since {1} ({2})", "{0} % desde {1} ({2})"],
  showChart: ["show the candles", "mostrar os candles"],
  candlesOf: ["Candles of {0}", "Candles de {0}"],
  summary: [
    "{0}, {1}, from {2}: opened at {3}, highest {4}, lowest {5}, now {6} {7}. Intervals without a quote: {8}.",
    "{0}, {1}, desde {2}: abriu em {3}, máxima {4}, mínima {5}, agora {6} {7}. Intervalos sem cotação: {8}.",
  ],
  noCandles: ["No candles: {0}", "Sem candles: {0}"],
  candleOpen: ["still open", "ainda aberto"],
  candleClosed: ["closed", "fechado"],
  candleEmpty: ["no quote", "sem cotação"],
  yes: ["used", "usada"],
  no: ["no: {0}", "não: {0}"],
  noFault: ["No fault is in force.", "Nenhuma falha em vigor."],
  faultIs: ["In force: {0}.", "Em vigor: {0}."],
  noFaults: ["Real exchanges have no faults to set.", "Corretoras reais não têm falhas para causar."],
  left: ["{0}, {1} s left", "{0}, faltam {1} s"],
  lasting: ["{0}, until it is ended", "{0}, até ser encerrada"],
  done: ["Done.", "Feito."],
  refusedToken: ["The gateway refused the token.", "O gateway recusou o token."],
  failed: ["It was not done: {0}", "Não foi feito: {0}"],
  withToken: ["Each button sets a fault that ends by itself.", "Cada botão causa uma falha que acaba sozinha."],
  copy: ["Copy", "Copiar"],
  copied: ["Copied", "Copiado"],
  up: ["up", "no ar"],
  away: ["away", "fora do ar"],
  unknown: ["not known", "sem notícia"],
  notSince: ["not known since {0}", "sem notícia desde {0}"],
  nowIs: [
    "The source’s breaker {0} is now: {1}. The next call {2}.",
    "O disjuntor da fonte, {0}, está agora: {1}. A próxima chamada {2}.",
  ],
  is_forced_open: ["forced open", "aberto à força"],
  is_disabled: ["disabled", "desligado"],
  is_metrics_only: ["counting only", "só contando"],
  made: ["is made", "é feita"],
  probe: ["is a probe", "é uma sonda"],
  refused: ["is refused", "é recusada"],
  refusedFor: ["is refused for {0} s", "é recusada por {0} s"],
  force: ["Force open", "Abrir à força"],
  reset: ["Reset", "Restaurar"],
  speaks: ["speaks", "fala"],
  silent: ["silent for 5 s", "calado há 5 s"],
  reportIs: ["Made {0} ago, in {1} ms of at most {2} ms: {3}.", "Feito há {0}, em {1} ms de no máximo {2} ms: {3}."],
  complete: ["complete", "completo"],
  partial: ["parts are missing", "faltam partes"],
  was_ok: ["answered", "respondeu"],
  was_stale: ["answered, old", "respondeu, velho"],
  was_skipped: ["not asked", "não perguntado"],
  was_rejected: ["refused", "recusou"],
  was_failed: ["failed", "falhou"],
  was_timed_out: ["too late", "tarde demais"],
  was_abandoned: ["given up", "deixado de lado"],
  was_lagging: ["lags", "atrasado"],
  logGap: ["{0}: gap after {1} through {2}: {3}", "{0}: lacuna depois de {1} até {2}: {3}"],
  retracted: ["they were false", "eram falsas"],
  gone: ["no longer kept", "não é mais guardado"],
  hole: ["the history lacks it", "falta no histórico"],
  rewritten: ["another history begins", "começa outro histórico"],
  lost: ["lost on the way", "perdido no caminho"],
  logResumed: ["Continued without a gap: {0}", "Continuou sem lacuna: {0}"],
  logHidden: [
    "The page was hidden and goes on with the newest prices",
    "A página estava oculta e continua com os preços mais novos",
  ],
  failure_rate: ["too large a share failed", "falhou uma parte grande demais"],
  slow_call_rate: ["too large a share was slow", "demorou uma parte grande demais"],
  consecutive_failures: ["too many failures in a row", "falhas seguidas demais"],
  retry_after: ["the upstream asked for a pause", "a fonte pediu uma pausa"],
  wait_over: ["the wait is over", "a espera acabou"],
  probes_succeeded: ["the probes succeeded", "as sondas passaram"],
  probes_failed: ["a probe failed", "uma sonda falhou"],
  probes_slow: ["a probe was slow", "uma sonda demorou"],
  forced: ["by an operator", "por um operador"],
  disabled: ["by an operator", "por um operador"],
  metrics_only: ["by an operator", "por um operador"],
  half_open_timed_out: ["no probe came back", "nenhuma sonda voltou"],
  empty: ["no book", "sem livro"],
  crossed: ["bid above ask", "compra acima da venda"],
  future: ["ahead of the clock", "à frente do relógio"],
  wide: ["spread too wide", "spread largo demais"],
  no_rate: ["no rate to the dollar", "sem taxa para o dólar"],
  outlier: ["far from the others", "longe das outras"],
  held: ["too far from the last price", "longe demais do último preço"],
  alone: ["alone", "sozinha"],
  no_venue: ["no exchange", "nenhuma corretora"],
};

let language = "en";

/** The English words of the page itself, once they were read there.
 * @type {Record<string, string>} */
export const written = {};

/** The text of a word, filled in; the key itself for one that is not known, as a reason of a later release.
 * @param {string} key
 * @param {(string | number)[]} values */
export function t(key, ...values) {
  const isEnglish = language === "en";
  const table = isEnglish ? written : page;
  const text = Object.hasOwn(said, key) ? said[key][isEnglish ? 0 : 1] : Object.hasOwn(table, key) ? table[key] : key;
  return text.replace(/\{(\d)\}/g, (_, place) => String(values[place]));
}

/** @param {string} chosen */
export function setLanguage(chosen) {
  language = chosen;
  formats = makeFormats();
}

function makeFormats() {
  const clock = /** @type {const} */ ({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  return {
    second: new Intl.DateTimeFormat(language, { ...clock, second: "2-digit" }),
    minute: new Intl.DateTimeFormat(language, clock),
    day: new Intl.DateTimeFormat(language, { ...clock, day: "2-digit", month: "short" }),
    date: new Intl.DateTimeFormat(language, { day: "2-digit", month: "short", timeZone: "UTC" }),
  };
}
let formats = makeFormats();

/** @param {number | Time | null} at
 * @param {"second" | "minute" | "day" | "date"} [precision] */
export function time(at, precision = "second") {
  const moment = typeof at === "string" ? Date.parse(at) : at;
  return moment === null || Number.isNaN(moment) ? "–" : formats[precision].format(moment);
}

/** In the largest unit that fits: `4 s`, `18 min`, `3 h`, `2 d`.
 * @param {number | null} ms */
export function duration(ms) {
  if (ms === null) return "–";
  const s = Math.floor(ms / 1000);
  if (s < 100) return `${s} s`;
  if (s < 6_000) return `${Math.floor(s / 60)} min`;
  return s < 172_800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86_400)} d`;
}
