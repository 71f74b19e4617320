//! Every limit of the platform, in one place. Units are in the name or in the type.
//!
//! A limit that is reached answers with an error that names the limit and, where there is one, the
//! setting that moves it. What a user may move is a flag of `pinnace up` or a field of the function; its
//! default stands here.

use std::time::Duration;

/// Bytes of a request's line and headers (contract section 1). Reached: 431.
pub const REQUEST_HEAD_BYTES_MAX: usize = 1 << 20;

/// Headers of one request or answer. Reached: 431, or 502 for an answer.
pub const HEADERS_MAX: usize = 512;

/// Headers that `Connection` may name in one message. Reached: 400, or 502 for an answer.
pub const CONNECTION_NAMES_MAX: usize = 32;

/// Preliminary answers (1xx) before one answer. Reached: 502.
pub const PRELIMINARY_ANSWERS_MAX: u32 = 64;

/// Bytes of memory that a connection keeps from one call to the next.
pub const CONNECTION_MEMORY_KEPT: usize = 16 << 10;

/// Bytes of the line and headers of a function's answer. Reached: 502.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 1 << 20;

/// Bytes of all chunk extensions of one body. Reached: 400, or the answer is broken off.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 16 << 10;

/// Bytes of one body's trailer. Reached: 400, or the answer is broken off.
pub const TRAILER_BYTES_MAX: usize = 16 << 10;

/// Bytes that are held of further requests a caller sends while its call is under way; the rest waits in
/// the kernel.
pub const WATCHED_BYTES_MAX: usize = 64 << 10;

/// Bytes of a refused request's body that are read on, so that its caller can read why. Reached: the
/// connection is closed.
pub const LINGER_BYTES_MAX: usize = 16 << 20;

/// How long a refused request's body is read on. Reached: the connection is closed.
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a call tries again to connect to replicas that refuse it: one that ends says so a moment later,
/// and the call goes to the next. Reached: 500.
pub const CONNECT_RETRY_TIME_MAX: Duration = Duration::from_secs(2);

/// Bytes of a JSON body to `/system/...`. Reached: 413.
pub const API_BODY_BYTES_MAX: usize = 1 << 20;

/// Bytes of a JSON body to `/system/secrets`, which may hold a value twice, once in base64. Reached: 413.
pub const SECRET_BODY_BYTES_MAX: usize = 4 << 20;

/// Bytes of a secret's value, as Kubernetes has it. Reached: 422.
pub const SECRET_BYTES_MAX: usize = 1 << 20;

/// Bytes of all secrets of one function, which lie in memory for each of its replicas. Reached: its replicas do not
/// start, and say why.
pub const SECRET_BYTES_PER_FUNCTION_MAX: usize = 4 << 20;

/// Secrets of all namespaces together. Reached: 507.
pub const SECRETS_MAX: usize = 100_000;

/// Bytes of a watchdog's program in an image. Reached: it runs as it is, and ours does not stand in for it.
pub const WATCHDOG_PROGRAM_BYTES_MAX: u64 = 64 << 20;

/// Schedules of one function. Further ones do not count.
pub const SCHEDULES_PER_FUNCTION_MAX: usize = 16;

/// How late a scheduled call may be for all due times to be made up for: of those before, when no server ran, only the
/// last one is.
pub const SCHEDULE_LATE_MAX: Duration = Duration::from_secs(5 * 60);

/// How far ahead of the clock a due time may lie that was called for already. What lies further ahead was noted by a
/// clock that was wrong, and does not count.
pub const SCHEDULE_AHEAD_MAX: Duration = Duration::from_secs(60 * 60);

/// Bytes of one schedule. Reached: it is not understood, which the function's conditions say.
pub const SCHEDULE_BYTES_MAX: usize = 256;

/// Namespaces. Reached: 507.
pub const NAMESPACES_MAX: usize = 10_000;

/// Longest time a call may take from its arrival to the first byte of its answer, unless the function
/// says otherwise. Flag `--timeout`. Reached: 504.
pub const CALL_DEADLINE_DEFAULT: Duration = Duration::from_secs(60);

/// Longest such time that counts: what asks for more gets this.
pub const CALL_DEADLINE_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Longest time without a byte of a body that has begun, in either direction. Reached: the connection is
/// ended.
pub const BODY_IDLE_MAX: Duration = Duration::from_secs(60);

/// Longest time a client may take to send a request's head. Reached: the connection is closed.
pub const REQUEST_HEAD_TIME_MAX: Duration = Duration::from_secs(60);

/// Bytes of the file of a certificate or its key. Reached: it is not used.
pub const TLS_FILE_BYTES_MAX: u64 = 1 << 20;

/// Longest time a client may take to agree on TLS. Reached: the connection is closed.
pub const TLS_HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Addresses that functions and API are served at. Reached: `pinnace up` refuses to start.
pub const LISTEN_ADDRESSES_MAX: usize = 8;

/// Calls at once on one caller's connection of HTTP/2. Reached: the caller must wait with the next; one that
/// does not has it reset (REFUSED_STREAM).
pub const STREAMS_PER_CALLER_MAX: u32 = 128;

/// Calls on a caller's connection of HTTP/2 that were reset before they were looked at. Reached: the connection is
/// ended (ENHANCE_YOUR_CALM).
pub const UNSERVED_RESETS_MAX: usize = 20;

/// Calls on a caller's connection of HTTP/2 that had to be reset since they broke its rules. Reached: the
/// connection is ended (ENHANCE_YOUR_CALM).
pub const STREAM_FAULTS_MAX: usize = 256;

/// Bytes of one request's body that a caller may send ahead over HTTP/2; the rest waits at its side.
pub const CALLER_STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Bytes of all bodies together that a caller's connection of HTTP/2 may send ahead.
pub const CALLER_WINDOW_BYTES: u32 = 8 << 20;

/// Bytes of one body that wait to be sent over HTTP/2; the rest is not read from where it comes.
pub const STREAM_BUFFER_BYTES_MAX: usize = 256 << 10;

/// Calls at once on one connection of HTTP/2 to a function, if the function takes so many. Reached: another
/// connection is made.
pub const STREAMS_PER_FUNCTION_CONNECTION_MAX: usize = 64;

/// Calls on one connection of HTTP/2 to a function in all. Reached: the next go over another. The `h2` crate breaks
/// off a connection on which a hundred empty frames came, and some servers send one with each answer.
pub const CALLS_PER_FUNCTION_CONNECTION_MAX: u32 = 96;

/// Bytes of one answer's body that a function may send ahead over HTTP/2.
pub const FUNCTION_STREAM_WINDOW_BYTES: u32 = 128 << 10;

/// Bytes of all answers together that a function may send ahead over one connection of HTTP/2: as much as all
/// calls on it may, so that a caller who does not read holds up no other.
pub const FUNCTION_WINDOW_BYTES: u32 = 8 << 20;

/// Connections of HTTP/2 that one worker keeps to one replica. Further ones are closed with their last call.
pub const LINES_PER_REPLICA_MAX: usize = 64;

/// Calls to one function that wait for a replica. Reached: 429.
pub const WAITING_CALLS_PER_FUNCTION_MAX: usize = 4096;

/// Calls under way at once in one function unless it says otherwise. Reached: 429.
pub const IN_FLIGHT_PER_FUNCTION_MAX: u32 = 16_384;

/// Idle connections that one worker keeps to one replica. Further ones are closed after use.
pub const IDLE_CONNECTIONS_PER_REPLICA_MAX: usize = 256;

/// How long an unused connection to a replica is kept. Node.js closes its end after 5 s.
pub const IDLE_CONNECTION_KEPT: Duration = Duration::from_secs(4);

/// Unconnected sockets of its network namespace that a replica hands out in one go.
pub const SOCKETS_PER_REQUEST_MAX: u32 = 32;

/// Receive buffer of a connection to a function on this host, before the kernel doubles it: small enough for a
/// window that needs no scaling (ARCHITECTURE, Decisions, says why).
pub const FUNCTION_RECEIVE_BUFFER_BYTES: usize = 60 << 10;

/// How long a new replica may take until it accepts a connection. Reached: it is ended and reported.
pub const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Between SIGTERM and SIGKILL, unless the function's `write_timeout` says otherwise (contract 8.9).
pub const GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// Longest grace period a function may ask for.
pub const GRACE_MAX: Duration = Duration::from_secs(300);

/// How long `pinnace up` lets calls under way finish when it is asked to end. Flag `--drain`.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(30);

/// Memory of a replica that names no limit, in bytes. Flag `--memory`.
pub const MEMORY_BYTES_DEFAULT: u64 = 512 << 20;

/// Least memory a replica may be limited to, in bytes: the kernel ends smaller ones before they run.
pub const MEMORY_BYTES_MIN: u64 = 4 << 20;

/// Processes and threads of a replica. Flag `--pids`.
pub const PIDS_DEFAULT: u32 = 256;

/// Open files of a replica's process.
pub const OPEN_FILES_PER_PROCESS: u64 = 4096;

/// Replicas of one function. Reached: 400.
pub const REPLICAS_PER_FUNCTION_MAX: u32 = 500;

/// Deployed functions. Reached: 507.
pub const FUNCTIONS_MAX: usize = 100_000;

/// Bytes of a function's environment and command together. Reached: 400.
pub const ENVIRONMENT_BYTES_MAX: usize = 64 << 10;

/// Entries of each of a function's maps and lists. Reached: 400.
pub const SPEC_ENTRIES_MAX: usize = 1024;

/// Bytes of one kept log line; the rest of a longer one is dropped and the line marked.
pub const LOG_LINE_BYTES_MAX: usize = 64 << 10;

/// Bytes of one log file before the next begins.
pub const LOG_FILE_BYTES_MAX: u64 = 8 << 20;

/// Log files kept of one function; the oldest is removed. Flag `--log-files`.
pub const LOG_FILES_PER_FUNCTION_MAX: usize = 4;

/// Followers of one function's log. Reached: 429.
pub const LOG_FOLLOWERS_PER_FUNCTION_MAX: usize = 64;

/// Log lines kept in memory for a follower that reads slowly; it is told how many it missed.
pub const LOG_LINES_BEHIND_MAX: usize = 1024;

/// First wait before a failed replica is replaced; doubled at each further failure.
pub const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(250);

/// Longest wait before a failed replica is replaced.
pub const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A replica that served for so long is healthy: the next failure begins at the first wait again.
pub const RESTART_BACKOFF_FORGET: Duration = Duration::from_secs(60);

/// Replicas of one function that are started at the same time; the rest follow as these get ready.
pub const STARTS_PER_FUNCTION_MAX: u32 = 16;

/// Idle time after which a function with the scale-to-zero label ends, unless it says otherwise
/// (contract section 9).
pub const ZERO_AFTER_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// Load of one replica of a function that names none, in the unit of what is measured (contract section 9).
pub const SCALE_TARGET_DEFAULT: f64 = 50.0;

/// The part of that load which a replica is given (contract section 9).
pub const SCALE_PROPORTION_DEFAULT: f64 = 0.9;

/// Longest time for which a higher number of replicas is kept (contract section 9). Reached: 400.
pub const SCALE_DOWN_WINDOW_MAX: Duration = Duration::from_secs(5 * 60);

/// Replicas that an alert adds, in percent of the most (OpenFaaS's documents, contract section 9).
pub const SCALE_FACTOR_PERCENT_DEFAULT: u32 = 20;

/// Alerts of one message to `/system/alert`. Reached: 400.
pub const ALERTS_PER_MESSAGE_MAX: usize = 10_000;

/// Scrapes of the metrics at once. Reached: 503.
pub const SCRAPES_MAX: usize = 8;

/// Longest time between two looks at a replica's health, or of one of them, that a function may ask for.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// Bytes of an uploaded image archive, and of a blob that is pushed. Flag `--image-bytes-max`. Reached: 413.
pub const IMAGE_BYTES_MAX: u64 = 16 << 30;

/// Bytes of one image once unpacked; stops archives that inflate without end.
pub const IMAGE_UNPACKED_BYTES_MAX: u64 = 64 << 30;

/// Entries of one image layer.
pub const LAYER_ENTRIES_MAX: u64 = 4_000_000;

/// Layers of one image: the kernel's overlay takes at most 500 lower directories.
pub const LAYERS_MAX: usize = 256;

/// Bytes of an image's manifest, index or configuration.
pub const IMAGE_JSON_BYTES_MAX: u64 = 4 << 20;

/// Bytes of one message between server, spawner and init.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 160 << 10;

/// Commands that wait for the store's writer.
pub const STORE_QUEUE_MAX: usize = 1024;

/// Events that wait for the loop that keeps replicas as wanted.
pub const KEEPER_QUEUE_MAX: usize = 65_536;

/// Descriptors beside one message between server, spawner and init (the kernel allows 253).
pub const CONTROL_MESSAGE_FDS_MAX: usize = 128;

/// Files and directories of the host that one sandbox has bound in. Reached: the start is refused.
pub const BINDS_PER_SANDBOX_MAX: usize = 64;

/// Sandboxes that are made ahead at most, after a burst that needed so many; a few are always. Flag
/// `--slots`.
pub const SLOTS_DEFAULT: usize = 32;

/// Most that the flag may say.
pub const SLOTS_MAX: usize = 256;

/// Sockets that the spawner keeps for the server. Reached: `Keep` is an error.
pub const KEPT_SOCKETS_MAX: usize = 128;

/// How long the spawner waits for a server that does not read its answers. Reached: the connection is
/// closed.
pub const CONTROL_SEND_TIME_MAX: Duration = Duration::from_secs(5);

/// How long an init whose function has ended waits for a server to fetch the function's last output.
pub const LAST_WORDS_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long a removed cgroup may stay busy while the kernel lets go of its processes.
pub const CGROUP_REMOVE_TIME_MAX: Duration = Duration::from_secs(2);

/// Files in an uploaded image archive (not in its layers).
pub const ARCHIVE_ENTRIES_MAX: usize = 32_768;

/// Bytes of a file's name in an uploaded image archive; the formats need 80.
pub const ARCHIVE_NAME_BYTES_MAX: usize = 512;

/// Images, and names of images, in one archive.
pub const ARCHIVE_IMAGES_MAX: usize = 1024;

/// Bytes of an extension header of a tar: a long name, or PAX records with extended attributes.
pub const TAR_EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// Pieces of a sparse file in a tar.
pub const TAR_SPARSE_PIECES_MAX: usize = 65_536;

/// Bytes of a path or of a link's target in an image layer: the kernel's own limit.
pub const LAYER_PATH_BYTES_MAX: usize = 4095;

/// Directories above a file of an image layer.
pub const LAYER_DEPTH_MAX: usize = 256;

/// Symbolic links followed for one path of an image: the kernel's own limit.
pub const LAYER_LINKS_FOLLOWED_MAX: usize = 40;

/// Bytes of the paths of those directories of a layer that an ordinary user's store must lock when the
/// layer is complete (their mode keeps their owner out).
pub const LAYER_LOCKED_PATH_BYTES_MAX: usize = 64 << 20;

/// Depth of image indexes within image indexes.
pub const IMAGE_INDEX_DEPTH_MAX: usize = 4;

/// Bytes of an image's /etc/passwd or /etc/group.
pub const IMAGE_USER_FILE_BYTES_MAX: u64 = 1 << 20;

/// Further groups of the user that an image names.
pub const IMAGE_USER_GROUPS_MAX: usize = 256;

/// User and group ids of a sandbox, counted from 0. Files and users of an image must be below.
pub const SANDBOX_IDS: u32 = 65_536;

/// How long a new spawner may take until it listens.
pub const SPAWNER_START_TIME_MAX: Duration = Duration::from_secs(10);

/// How long an init may take until it answers: it finishes its sandbox first.
pub const ATTACH_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of a stack file, of a file it names, and of either after substitution. Reached: the command
/// line refuses it.
pub const STACK_FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a secret's value that the command line sends. Reached: it refuses the value.
pub const CLIENT_SECRET_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a function store that the command line reads. Reached: it refuses the store.
pub const FUNCTION_STORE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a template store that the command line reads. Reached: it refuses the store.
pub const TEMPLATE_STORE_BYTES_MAX: u64 = 4 << 20;

/// Bytes of a `template.yml` that the command line reads. Reached: it refuses the template.
pub const TEMPLATE_FILE_BYTES_MAX: u64 = 256 << 10;

/// Files and folders of a template. Reached: it is not taken.
pub const TEMPLATE_FILES_MAX: usize = 20_000;

/// Bytes of a template's files. Reached: it is not taken.
pub const TEMPLATE_BYTES_MAX: u64 = 256 << 20;

/// Files and folders that one build is given. Reached: it is not built.
pub const CONTEXT_FILES_MAX: usize = 200_000;

/// Bytes of the files that one build is given. Reached: it is not built.
pub const CONTEXT_BYTES_MAX: u64 = 4 << 30;

/// Folders within folders that are copied into a build. Reached, as by a link that leads back: it is not built.
pub const FOLDER_DEPTH_MAX: usize = 64;

/// Builds and pushes that the command line runs at a time. `--parallel` asks for no more.
pub const BUILDS_AT_ONCE_MAX: usize = 64;

/// How often `up --watch` looks whether the source has changed.
pub const SOURCE_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Lines of a build's log that are kept to be shown if it fails. Reached: the oldest goes.
pub const BUILD_LOG_LINES_MAX: usize = 200;

/// Bytes of one line of a build's log that are shown. Reached: the line is cut.
pub const BUILD_LOG_LINE_BYTES_MAX: usize = 16 << 10;

/// Bytes of a call's body that `pinnace invoke --sign` signs. Reached: the call is not made.
pub const SIGNED_BODY_BYTES_MAX: u64 = 64 << 20;

/// Files of a handler whose digest `--tag digest` takes. Reached: the command line refuses.
pub const HANDLER_FILES_MAX: usize = 100_000;

/// Bytes of the command line's file of stored credentials. Reached: it is refused.
pub const CREDENTIALS_FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a JSON answer that the command line reads. Reached: the command fails.
pub const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Bytes of one line of a newline-delimited answer that the command line reads. Reached: it fails.
pub const ANSWER_LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes of an error's text that the command line shows; the rest is left out.
pub const ERROR_TEXT_BYTES_MAX: u64 = 16 << 10;

/// Longest time the command line waits for a connection to a gateway.
pub const CLIENT_CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest time the command line waits for a gateway to answer a request that is not a stream.
pub const CLIENT_REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// Longest time `pinnace version` waits for a gateway: it must answer offline too.
pub const CLIENT_VERSION_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest time the command line waits for the next byte while an image is loaded: unpacking one layer
/// may take long.
pub const CLIENT_LOAD_IDLE_MAX: Duration = Duration::from_secs(15 * 60);

/// How long `pinnace deploy` waits for a function to be ready. Flag `--timeout`.
pub const ROLLOUT_WAIT_DEFAULT: Duration = Duration::from_secs(120);

/// How long `pinnace up --examples` waits for its own server to answer.
pub const HEALTH_WAIT_MAX: Duration = Duration::from_secs(60);

/// Between two steps of a spinner on a terminal.
pub const SPINNER_TICK: Duration = Duration::from_millis(100);

/// Connections that a watchdog serves at once. Further ones wait in the kernel's queue.
pub const WATCHDOG_CONNECTIONS_MAX: usize = 1536;

/// Bytes of a body that a watchdog holds whole (serializing mode, `http_buffer_req_body`). Reached: 413.
pub const HELD_BODY_BYTES_MAX: usize = 64 << 20;

/// Bytes of output of one call in serializing mode, which are held until the process ends. Reached: the
/// process is ended and the call answered 500.
pub const HELD_OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Bytes of a body its process does not read that a watchdog reads all the same, to save the caller's
/// connection. Reached: the connection is closed after the answer.
pub const UNREAD_BODY_BYTES_MAX: u64 = 8 << 20;

/// Longest silence, both ways, of a call that has switched protocols (WebSocket), and of an event stream
/// through a watchdog. Reached: it is ended.
pub const TUNNEL_IDLE_MAX: Duration = Duration::from_secs(60 * 60);

/// Bytes of log lines that wait because nobody reads the log. Reached: the function's output waits, and
/// the watchdog's own lines are left out and counted.
pub const LOG_BACKLOG_BYTES_MAX: usize = 256 << 10;

/// How long a function's server may take to end after its SIGTERM, once no call is under way. Reached:
/// SIGKILL.
pub const CHILD_STOP_MAX: Duration = Duration::from_secs(2);

/// Entries of a directory that a watchdog lists in static mode. Further ones are left out.
pub const LISTED_FILES_MAX: usize = 10_000;

/// Byte ranges of one request in static mode. Reached: the whole file is sent.
pub const RANGES_MAX: usize = 16;

/// Bytes of a password file or of a password on standard input.
pub const PASSWORD_BYTES_MAX: u64 = 4096;

/// Longest time a registry may take to accept a connection. Reached: the pull fails.
pub const REGISTRY_CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest time without [`REGISTRY_WINDOW_BYTES_MIN`] of an answer, or without its head. Flag
/// `--registry-idle`. Reached: the connection is given up, and the request tried again from where it stopped.
pub const REGISTRY_IDLE_DEFAULT: Duration = Duration::from_secs(30);

/// Bytes that a registry must send within that time, unless less is left to send.
pub const REGISTRY_WINDOW_BYTES_MIN: u64 = 4 << 10;

/// Tries of one request in a row that bring nothing. Reached: the pull fails.
pub const REGISTRY_TRIES_MAX: u32 = 5;

/// First wait before a registry is asked again; doubled at each further failure.
pub const REGISTRY_BACKOFF_MIN: Duration = Duration::from_millis(250);

/// Longest wait before a registry is asked again, unless it asks for more.
pub const REGISTRY_BACKOFF_MAX: Duration = Duration::from_secs(8);

/// Longest wait that a registry may ask for (`Retry-After`). Reached: the pull fails.
pub const REGISTRY_RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Redirects that one request to a registry follows. Reached: the pull fails.
pub const REGISTRY_REDIRECTS_MAX: usize = 5;

/// Bytes of an answer of a registry's token service, and of an error's text. Reached: the pull fails, or the
/// rest is left out.
pub const REGISTRY_TOKEN_BYTES_MAX: u64 = 256 << 10;

/// Layers of one image that are fetched at the same time; the others follow.
pub const PULL_LAYERS_MAX: usize = 3;

/// Images that are pulled at the same time. Further pulls wait.
pub const PULLS_MAX: usize = 4;

/// Pulls that wait or are under way. Reached: 429.
pub const PULLS_KNOWN_MAX: usize = 1024;

/// How long what a broken-off pull has fetched is kept for the next one.
pub const PARTIAL_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Bytes of Docker's configuration file. Reached: it is not read, and the pull fails.
pub const DOCKER_CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Longest time a credential helper may take. Reached: it is ended and the pull fails.
pub const CREDENTIAL_HELPER_TIME_MAX: Duration = Duration::from_secs(15);

/// Bytes of a credential helper's output. Reached: the pull fails.
pub const CREDENTIAL_HELPER_BYTES_MAX: u64 = 64 << 10;

/// Slots with a network at once. Reached: a start fails.
pub const NETWORK_SLOTS_MAX: u32 = 65_000;

/// Connections to the outside that one replica may have open at once, as the kernel counts them. Reached:
/// further ones are refused at once ("no route to host").
pub const OUTSIDE_CONNECTIONS_PER_REPLICA_MAX: u32 = 4096;

/// Nameservers of the host that functions may ask (resolv.conf(5) reads three).
pub const RESOLVERS_MAX: usize = 3;

/// Connections that one replica may have open to the gateway, so that one function cannot take the places of
/// all callers. Reached: 429.
pub const GATEWAY_CONNECTIONS_PER_REPLICA_MAX: usize = 256;

/// Bytes of an asynchronous call's body. Flag `--async-body`. Reached: 413.
pub const ASYNC_BODY_BYTES_DEFAULT: u64 = 1 << 20;

/// Most that the flag may say: such a body is held in memory whole.
pub const ASYNC_BODY_BYTES_MAX: u64 = 64 << 20;

/// Bytes of heads and bodies of asynchronous calls that are being received or written to disk. Reached: 429.
pub const ASYNC_RECEIVED_BYTES_MAX: usize = 256 << 20;

/// Longest time until all of an asynchronous call's body has come, since room is kept for it meanwhile. Reached:
/// 408.
pub const ASYNC_BODY_TIME_MAX: Duration = Duration::from_secs(120);

/// Bytes of a callback's URL. Reached: 400.
pub const CALLBACK_URL_BYTES_MAX: usize = 4096;

/// Asynchronous calls that wait or are under way. Reached: 429.
pub const QUEUED_CALLS_MAX: usize = 250_000;

/// Bytes of heads and bodies of asynchronous calls that wait or are under way. Reached: 429.
pub const QUEUED_BYTES_MAX: u64 = 4 << 30;

/// Bytes of a queued call's body that is kept in the database itself; a larger one has a file of its own.
pub const QUEUED_BODY_INLINE_BYTES_MAX: usize = 64 << 10;

/// Asynchronous calls that are delivered at the same time; as many again, of functions that have one each. Further ones
/// wait in the queue.
pub const DELIVERIES_MAX: usize = 256;

/// How often an asynchronous call is tried at most, unless its function says otherwise (contract section 7.5).
/// Reached: it is kept among those that failed.
pub const DELIVERY_ATTEMPTS_DEFAULT: u32 = 10;

/// Most attempts that a function may ask for: what asks for more gets the default.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 1000;

/// First wait before a failed asynchronous call is tried again; doubled each time (contract section 7.5).
pub const DELIVERY_WAIT_MIN_DEFAULT: Duration = Duration::from_secs(10);

/// Longest such wait (contract section 7.5).
pub const DELIVERY_WAIT_MAX_DEFAULT: Duration = Duration::from_secs(120);

/// Longest wait that a function may set or ask for (`Retry-After`): what asks for more gets this.
pub const DELIVERY_WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of a function's answer to an asynchronous call; what is beyond is cut off and its callback told so.
pub const DELIVERY_ANSWER_BYTES_MAX: usize = 4 << 20;

/// Attempts of one call whose story is kept: the latest.
pub const DELIVERY_HISTORY_MAX: usize = 32;

/// Failed asynchronous calls that are kept, of all functions; the oldest are removed, which is said on the log.
pub const FAILED_CALLS_MAX: usize = 100_000;

/// Failed asynchronous calls that are kept of one function; the oldest are removed, which is said on the log.
pub const FAILED_CALLS_PER_FUNCTION_MAX: usize = 10_000;

/// Bytes of bodies of failed asynchronous calls that are kept; the oldest calls are removed.
pub const FAILED_CALLS_BYTES_MAX: u64 = 1 << 30;

/// The same of one function.
pub const FAILED_CALLS_BYTES_PER_FUNCTION_MAX: u64 = 256 << 20;

/// How long a failed asynchronous call is kept.
pub const FAILED_CALL_AGE_MAX: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Callbacks under way at once. Reached: further ones wait, and deliveries before they end.
pub const CALLBACKS_MAX: usize = 64;

/// Callbacks under way at once to one host, or to one function. Reached: further ones wait.
pub const CALLBACKS_PER_RECEIVER_MAX: usize = 16;

/// Longest that a callback waits for its place, which is longer than one that is under way may take. Reached: it is given
/// up and said on the log.
pub const CALLBACK_PLACE_WAIT_MAX: Duration = Duration::from_secs(60);

/// How often a callback is tried. Reached: it is given up and said on the log.
pub const CALLBACK_TRIES_MAX: u32 = 3;

/// First wait before a callback is tried again; doubled.
pub const CALLBACK_WAIT_MIN: Duration = Duration::from_secs(1);

/// Longest time that one try of a callback may take.
pub const CALLBACK_TIME_MAX: Duration = Duration::from_secs(10);

/// Calls that one listing of the queue shows.
pub const QUEUE_LISTED_MAX: usize = 1000;

/// How long a token holds that the gateway gives.
pub const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// How far the clock may have been set back since a token was made.
pub const TOKEN_CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// Functions that one token is for. Reached: 400.
pub const TOKEN_AUDIENCES_MAX: usize = 32;

/// Bytes of a token. Reached: it is none of ours.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Bytes of a request for a token. Reached: 413.
pub const TOKEN_REQUEST_BYTES_MAX: usize = 64 << 10;

/// Bytes of a manifest that is pushed (distribution specification, section Pushing manifests). Reached: 413.
pub const REGISTRY_MANIFEST_BYTES_MAX: usize = 4 << 20;

/// What one manifest is made of at most. Reached: 400.
pub const REGISTRY_MANIFEST_PARTS_MAX: usize = 4096;

/// Tags that one request gives a manifest. Reached: 414.
pub const REGISTRY_TAGS_PER_PUSH_MAX: usize = 64;

/// Entries of one page of a list of the registry. Further ones are on the next, which the header `Link` names.
pub const REGISTRY_PAGE_MAX: usize = 1000;

/// Bytes of one page of a list of referrers, from which on the next begins.
pub const REGISTRY_PAGE_BYTES_MAX: usize = 4 << 20;

/// Images that `GET /system/registry` lists. Further ones are left out, which the answer says.
pub const REGISTRY_LISTED_MAX: usize = 10_000;

/// Uploads to the registry that have begun and not ended. Reached: 429.
pub const REGISTRY_UPLOADS_MAX: usize = 1024;

/// How long an upload is kept that nobody goes on with.
pub const REGISTRY_UPLOAD_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The same of one of which nothing has come: clients begin some that they do not need.
pub const REGISTRY_EMPTY_UPLOAD_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// Bytes of the disk that pushes leave to the rest: functions, queued calls and logs lie there too. Reached: 507.
pub const REGISTRY_DISK_LEFT_BYTES_MIN: u64 = 64 << 20;

/// How long a blob that no manifest refers to is kept: its manifest may be on its way. Flag `--grace` of
/// `pinnace registry gc`.
pub const REGISTRY_GRACE_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// Between two collections of the registry's garbage.
pub const REGISTRY_COLLECTED_EVERY: Duration = Duration::from_secs(60 * 60);

/// Builds at a time. Flag `--builds-max`. Reached: 429.
pub const BUILDS_MAX_DEFAULT: usize = 2;

/// Bytes of a build's request, its source included. Reached: 413.
pub const BUILD_REQUEST_BYTES_MAX: u64 = 1 << 30;

/// Bytes of the same once unpacked. Reached: 413.
pub const BUILD_CONTEXT_BYTES_MAX: u64 = 4 << 30;

/// Bytes of a `template.yml`, of a build's configuration and of its sealed secrets, each. Reached: 400.
pub const BUILD_DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// Variables that a build is asked for with. Reached: 400.
pub const BUILD_ARGUMENTS_MAX: usize = 256;

/// Paths that a step of a build keeps, and files that it sees. Reached: 400.
pub const BUILD_PATHS_MAX: usize = 64;

/// How long one command of a build may run. Flag `--build-time-max`. Reached: the build fails and says so.
pub const BUILD_TIME_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// Memory of a build's command, in bytes. Flag `--build-memory`. Reached: the build fails and says so.
pub const BUILD_MEMORY_BYTES_DEFAULT: u64 = 2 << 30;

/// Processes and threads of a build's command.
pub const BUILD_PIDS_MAX: u32 = 1024;

/// Bytes that a build's command may write, but for /tmp and /dev/shm. Looked at while it runs. Reached: the build
/// fails and says so.
pub const BUILD_DISK_BYTES_MAX: u64 = 8 << 30;

/// Files and directories that a build's command may make, looked at in the same way.
pub const BUILD_DISK_ENTRIES_MAX: u64 = 1_000_000;

/// Bytes that a build leaves free on the disk of the state directory. Reached: the build fails and says so.
pub const BUILD_DISK_FREE_MIN: u64 = 256 << 20;

/// How often it is looked at what is free.
pub const BUILD_DISK_LOOK: Duration = Duration::from_millis(200);

/// Bytes of one line of a build's log. What is longer is cut up.
pub const BUILD_LINE_BYTES_MAX: usize = 16 << 10;

/// Bytes of a build's log in an answer that comes in one piece; the middle is left out, and says so.
pub const BUILD_LOG_BYTES_MAX: usize = 4 << 20;

/// Layers whose making is remembered. Reached: those asked for longest ago are made anew.
pub const BUILD_CACHE_ENTRIES_MAX: usize = 1000;

/// Bytes of all secrets of one build. Reached: 400.
pub const BUILD_SECRETS_BYTES_MAX: usize = 1 << 20;
