//! How each section is shown: what is said before its figures, the columns of its table, and its pictures.

use super::stats::Figure;
use crate::plot::Scale;

pub(crate) struct Chapter {
    /// One of `sections::ALL`.
    pub section: &'static str,
    pub text: &'static str,
    pub columns: &'static [Column],
    pub pictures: &'static [Picture],
}

pub(crate) struct Column {
    pub heading: &'static str,
    pub figure: Figure,
    pub to: To,
}

/// What a column is a ratio to, within each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// It is the figure itself.
    Itself,
    /// The row of this name, at the same place of the axis.
    Row(&'static str),
    /// The row of the same name that comes first on the axis.
    First,
}

pub(crate) struct Picture {
    /// Of `docs/performance/FILE.svg`.
    pub file: &'static str,
    pub title: &'static str,
    /// What is shown, with its unit.
    pub label: &'static str,
    pub form: Form,
}

pub(crate) enum Form {
    /// A lying bar for each row; on a logarithmic axis, a dot.
    Bars(Figure, Scale),
    /// Processor time: host or client, and Redis, added up.
    Cpu,
    /// A line for each name of a row, over the axis of the section: scale of the axis, scale of the figure.
    Lines(Figure, Scale, Scale),
}

const RATE: Column = Column { heading: "events/s", figure: Figure::Rate, to: To::Itself };
const CLIENT: Column = Column { heading: "client or host, µs an event", figure: Figure::Client, to: To::Itself };
const REDIS: Column = Column { heading: "Redis, µs an event", figure: Figure::Redis, to: To::Itself };
const MEMORY: Column = Column { heading: "memory, MiB", figure: Figure::Memory, to: To::Itself };

const fn rate_to(heading: &'static str, to: To) -> Column {
    Column { heading, figure: Figure::Rate, to }
}

const fn extra(heading: &'static str, name: &'static str) -> Column {
    Column { heading, figure: Figure::Extra(name), to: To::Itself }
}

const PER_SECOND: &str = "events a second";
const MICROSECONDS: &str = "µs of processor time an event";

pub(crate) const CHAPTERS: &[Chapter] = &[
    Chapter {
        section: "pipeline",
        text: "A backlog is drained. `raw` only reads and acks, 100 entries at a time, with the client library that the host \
            uses too. `bare` makes the host's own calls to Redis, fetch and settlement, with nothing in between: what the \
            guarantees cost there. The others are the whole host, a process of its own: `stateless` looks at the event, \
            `emit` emits one event that is checked against its schema, `keyed` reads and writes one value of the key's \
            state. Each event has a fresh instance of the plugin, which is the default; in the rows with `64`, an instance \
            serves 64 events (`instance_events_max`). `raw again` is the first row once more: what the two differ by is \
            noise.",
        columns: &[RATE, rate_to("to raw", To::Row("raw")), rate_to("to bare", To::Row("bare")), CLIENT, REDIS, MEMORY],
        pictures: &[
            Picture {
                file: "pipeline",
                title: "Draining a backlog",
                label: PER_SECOND,
                form: Form::Bars(Figure::Rate, Scale::Linear),
            },
            Picture { file: "pipeline-cpu", title: "What an event costs", label: MICROSECONDS, form: Form::Cpu },
        ],
    },
    Chapter {
        section: "peers",
        text: "Others with the same backlog and a handler that does next to nothing, each set up as its own documentation \
            recommends, beside ours in the same rounds. They promise different things, and none of the \
            libraries validates events, sandboxes handlers or settles effects atomically. `native` is a plain Rust loop with \
            the same JSON Schema check, duplicates dropped by a key for each event, and no WebAssembly: what a team would \
            write by hand.",
        columns: &[RATE, rate_to("to stateless", To::Row("stateless")), CLIENT, REDIS, MEMORY],
        pictures: &[
            Picture {
                file: "peers",
                title: "Draining a backlog, beside others",
                label: "events a second, logarithmic",
                form: Form::Bars(Figure::Rate, Scale::Log),
            },
            Picture {
                file: "peers-cpu",
                title: "What an event costs, beside others",
                label: "µs of processor time an event, client and Redis, logarithmic",
                form: Form::Bars(Figure::Total, Scale::Log),
            },
        ],
    },
    Chapter {
        section: "latency",
        text: "Events come at fixed rates, whether or not the ones before are done. The clock of an event starts when it was \
            due to be published, so that a stall counts for all that waited behind it, and stops when a subscriber sees the \
            event that its handler emitted, which becomes visible in the step that settles it. `bare loop` waits for \
            entries, then publishes and acks in one round trip: no duplicate check, not atomic, no plugin. `bare settled` \
            makes the host's calls to Redis, with nothing in between. `tidemill` is the host with the `emit` plugin. The \
            lowest rate is an idle host: one event at a time, each 50 to 100 ms. An idle host settles a single event at once; \
            batches grow by themselves as events come faster: `entries a read` is how many it brought on average. Where fewer \
            events are seen than the rate says, they pile up, and the quantiles grow with the time. A quantile beyond which \
            not even one event lies is left out. `sent late` is how much of p50 is the publisher's own.",
        columns: &[
            Column { heading: "seen, events/s", figure: Figure::Rate, to: To::Itself },
            extra("p50, µs", "p50_us"),
            Column { heading: "p50 to bare loop", figure: Figure::Extra("p50_us"), to: To::Row("bare loop") },
            extra("p99, µs", "p99_us"),
            extra("p99.9, µs", "p999_us"),
            extra("max, µs", "max_us"),
            extra("entries a read", "batch"),
            extra("sent late, µs", "late_us"),
        ],
        pictures: &[
            Picture {
                file: "latency-p50",
                title: "From due to settled: the median",
                label: "p50, µs",
                form: Form::Lines(Figure::Extra("p50_us"), Scale::Log, Scale::Log),
            },
            Picture {
                file: "latency-p99",
                title: "From due to settled: one in a hundred is slower",
                label: "p99, µs",
                form: Form::Lines(Figure::Extra("p99_us"), Scale::Log, Scale::Log),
            },
            Picture {
                file: "latency-batch",
                title: "A busy host batches",
                label: "entries a read",
                form: Form::Lines(Figure::Extra("batch"), Scale::Log, Scale::Log),
            },
        ],
    },
    Chapter {
        section: "fsync",
        text: "The stateless plugin, as durable as the store is told to be.",
        columns: &[RATE, rate_to("to none", To::Row("none")), CLIENT, REDIS, MEMORY],
        pictures: &[Picture {
            file: "fsync",
            title: "Durability",
            label: "events a second, logarithmic",
            form: Form::Bars(Figure::Rate, Scale::Log),
        }],
    },
    Chapter {
        section: "handlers",
        text: "Several handlers read one stream in one host. The rate is that of the stream: until the last handler is done.",
        columns: &[
            RATE,
            CLIENT,
            Column { heading: "the same, to one handler", figure: Figure::Client, to: To::First },
            REDIS,
            MEMORY,
        ],
        pictures: &[Picture {
            file: "handlers",
            title: "Handlers on one stream",
            label: "µs of the host an event, all handlers",
            form: Form::Lines(Figure::Client, Scale::Linear, Scale::Linear),
        }],
    },
    Chapter {
        section: "hosts",
        text: "Host processes that share one Redis and one handler. On two cores they also share the processor with Redis, so \
            the sum of their rates says little about machines of their own; that nothing is done twice says more.",
        columns: &[
            RATE,
            rate_to("to one host", To::First),
            CLIENT,
            extra("fenced, share", "fenced_share"),
            extra("doubled, share", "doubled_share"),
        ],
        pictures: &[],
    },
    Chapter {
        section: "payload",
        text: "The stateless plugin and events with more `data`. All of it is parsed, validated and handed to the guest.",
        columns: &[RATE, CLIENT, REDIS, MEMORY],
        pictures: &[Picture {
            file: "payload",
            title: "Larger events",
            label: "µs of the host an event",
            form: Form::Lines(Figure::Client, Scale::Log, Scale::Log),
        }],
    },
    Chapter {
        section: "instances",
        text: "What isolation costs: an instance of the plugin serves 1, 16, 64 or 1 000 events before it is thrown away.",
        columns: &[RATE, rate_to("to a fresh one each", To::First), CLIENT, REDIS, MEMORY],
        pictures: &[Picture {
            file: "instances",
            title: "Events that an instance serves",
            label: "µs of the host an event",
            form: Form::Lines(Figure::Client, Scale::Log, Scale::Linear),
        }],
    },
    Chapter {
        section: "backlog",
        text: "The stateless plugin and backlogs of several lengths: the rate and the host's memory should not depend on them. \
            The last column is what Redis holds for each event to know it again (the inbox, at the default window).",
        columns: &[
            RATE,
            CLIENT,
            extra("MiB at the start", "mib_start"),
            extra("in the middle", "mib_middle"),
            extra("at the end", "mib_end"),
            extra("inbox, bytes an event", "inbox_bytes"),
        ],
        pictures: &[Picture {
            file: "backlog",
            title: "The host's memory at the end of a backlog",
            label: "MiB",
            form: Form::Lines(Figure::Extra("mib_end"), Scale::Log, Scale::Linear),
        }],
    },
    Chapter {
        section: "start",
        text: "A host is started on a stream that waits, with the compiled plugins in its cache.",
        columns: &[extra("ms to the first event settled", "ms"), MEMORY],
        pictures: &[],
    },
];
