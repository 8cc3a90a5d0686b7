//! Every task and thread of a host, and what its death means.

/// What it means when one dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is started again: at most `RESTARTS_MAX` times within `RESTARTS_WITHIN`, then the host ends.
    Restarted,
    /// The host exits with 1, and others reclaim its deliveries.
    EndsHost,
    /// The caller gets the error, and the next one is as good as ever.
    Told,
}

macro_rules! tasks {
    ($($(#[$doc:meta])* $task:ident $name:literal $end:ident)*) => {
        /// Every task and thread of a host.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Task {
            $($(#[$doc])* $task,)*
        }

        impl Task {
            pub const ALL: &[Self] = &[$(Self::$task),*];

            /// As it stands in the log, in metrics and in the guide.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$task => $name,)*
                }
            }

            pub fn end(self) -> End {
                match self {
                    $(Self::$task => End::$end,)*
                }
            }
        }
    };
}

tasks! {
    /// A thread: processes batches of a handler on a stream.
    Worker "worker" Restarted
    /// Sends again what the backend refused.
    Resend "resend" Restarted
    /// Moves due retries and timers to the redelivery queue.
    Scheduler "scheduler" Restarted
    Janitor "janitor" Restarted
    Pause "pause" Restarted
    /// Publishes what this host wants, and reads what others do.
    Agreement "agreement" Restarted
    Heartbeat "heartbeat" Restarted
    /// Ends `run --until-idle`.
    Idle "idle" Restarted
    /// Watches files for changes.
    Files "files" Restarted
    /// Waits for SIGHUP.
    Hangup "hangup" Restarted
    /// A thread: the one that has the SQLite file.
    Sqlite "sqlite" Restarted
    /// A thread: the clock by which guests are stopped.
    Epoch "epoch" Restarted
    /// A thread: calls of plugins that block on other services.
    Io "io" Restarted
    /// A thread: writes the log.
    Log "log" Restarted
    /// Waits for SIGINT and SIGTERM.
    Signals "signals" EndsHost
    /// Serves HTTP.
    Http "http" EndsHost
    /// One connection of a client.
    Client "client" Told
    /// One request that changes something.
    Request "request" Told
    /// One call on the I/O pool.
    Call "call" Told
    /// Loads a plugin, or reads settings.
    Load "load" Told
    /// Reads files to see whether they have changed.
    Digest "digest" Told
    /// A thread: makes an instance once.
    Trial "trial" Told
    /// A thread that talks with the compiler.
    Compile "compile" Told
    /// A thread that looks a name up.
    LookUp "look-up" Told
    /// One connection to Redis.
    Connection "connection" Told
    /// Reads a SQLite file through, or copies it.
    Integrity "integrity" Told
    /// Reads the token of the API.
    Token "token" Told
    /// A thread: reads what `publish` is given.
    Input "input" Told
    /// The host in `demo`.
    Demo "demo" Told
}
