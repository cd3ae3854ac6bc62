//! The running gateway: everything wired, both planes listening, and an end that loses nothing.

use crate::cli::Serve;
use crate::config::Config;
use crate::exit::Failure;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use warden_adapters::acks::Acker;
use warden_adapters::archive;
use warden_adapters::files::DataDir;
use warden_adapters::govern::{self, Governor};
use warden_adapters::http::listener;
use warden_adapters::http::llm::Llm;
use warden_adapters::http::operator::{OperatorPlane, Peer};
use warden_adapters::http::worker::WorkerPlane;
use warden_adapters::hub::Hub;
use warden_adapters::hub::embedded::Embedded;
use warden_adapters::hub::remote::RemoteHub;
use warden_adapters::identity::Identities;
use warden_adapters::inbox::{Executor, Runner, schedule};
use warden_adapters::journal::checkpoint::{self, Notary};
use warden_adapters::journal::witness::{self, Witness, Witnesses};
use warden_adapters::journal::{Anchor, Journal, Retain};
use warden_adapters::keys::Keys;
use warden_adapters::metrics::Metrics;
use warden_adapters::secrets;
use warden_adapters::sessions::SessionBook;
use warden_adapters::tasks::TaskBook;
use warden_adapters::traces::Tracer;
use warden_adapters::view::{Shelf, View};
use warden_adapters::world::{World, now};
use warden_core::journal::note::{SignerKey, VerifierKey};
use warden_core::journal::record::{Body, KeyChange, PolicyChange, PolicyEvent, Record};
use warden_core::pipeline::{self, Gate};
use warden_core::port::{Journal as _, Room};
use warden_core::secrets::Scanner;
use warden_core::session::app::Apps;
use warden_core::task::state::Reserved;

/// How long in-flight proposals may take at a shutdown.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the files of witnesses may take to be read at a start.
const WITNESS_READ: Duration = Duration::from_secs(30);
/// How long witnesses may take for the last checkpoint.
const WITNESS_PATIENCE: Duration = Duration::from_secs(3);
/// How often old segments are looked for.
const RETENTION: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(5);
/// How often a long catching up is told of.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How long a queryable log that stopped is left alone.
const VIEW_AGAIN: Duration = Duration::from_secs(5);
/// How long the queryable log lets records gather.
const VIEW_PAUSE: Duration = Duration::from_millis(20);

/// A gateway that serves.
pub struct Gateway {
    /// Where workers reach it.
    pub address: SocketAddr,
    /// Where operators reach it.
    pub socket: PathBuf,
    /// The gate.
    pub gate: Arc<Gate<World>>,
    /// What decides.
    pub governor: Arc<Governor>,
    /// Who may speak.
    pub identities: Arc<RwLock<Identities>>,
    workers: Arc<WorkerPlane>,
    view: Arc<Shelf>,
    notary: Notary,
    witnesses: Arc<Witnesses>,
    tracer: Option<Tracer>,
    stop: watch::Sender<bool>,
    data_dir: DataDir,
}

impl Gateway {
    /// Opens the data folder, verifies the journal, loads what decides, and listens.
    pub async fn start(config: &Config, serve: &Serve) -> Result<Self, Failure> {
        let Serve { watch: watch_policies, new_checkpoint_key, shadow } = *serve;
        let shared = config.workers_with_our_uid();
        if !shared.is_empty() {
            return Err(Failure::invalid(format!(
                "worker `{}` runs under Warden's own user id, so its code could read the operators' credentials: give it another with `uid:`, or accept that with `same_uid: true`",
                shared.join("`, `")
            )));
        }
        raise_file_limit();
        let data_dir = DataDir::open(&config.setup.data_dir)?;
        let keys = Keys::open(data_dir.path())?;
        let signer = keys.signer(config.signing.key.as_deref(), config.signing.origin.as_deref())?;
        let (dir, verifiers, witnesses) = (data_dir.path().to_owned(), keys.verifiers()?, config.witnesses.clone());
        let read = blocking(move || anchors(&dir, &verifiers, &witnesses));
        let anchors = tokio::time::timeout(WITNESS_READ, read).await.map_err(|_| {
            Failure::failed("the checkpoints of `witness:` cannot be read: is the mount of a witness's file there?")
        })??;
        let (dir, key, sources) = (data_dir.path().to_owned(), keys.clone(), config.secrets.clone());
        let engine = blocking(move || secrets::load(&dir, &key, &sources)).await?;
        let scanner = Arc::new(Scanner::new(engine, keys.mac().clone()));
        scanner.tick(now());
        let (path, sees, options) = (data_dir.path().to_owned(), scanner.clone(), config.journal.clone());
        let journal = blocking(move || Journal::open(&path, sees, options, &anchors)).await?;
        signs_on(&journal, &keys, &signer, new_checkpoint_key).await?;
        let mut catalogue = govern::load_catalogue(data_dir.path())?;
        let added = govern::discover(&config.setup, &mut catalogue, &scanner).await;
        if !added.is_empty() {
            govern::save_catalogue(data_dir.path(), &catalogue)?;
        }
        let setup = config.setup.clone();
        let (source, snapshot) = blocking(move || govern::load(&setup)).await?;
        if let Err(e) = govern::write_schema(data_dir.path(), &snapshot) {
            tracing::warn!(error = %e, "the schema for editors cannot be written");
        }
        // On a full disk a gateway starts all the same: an operator makes room through it.
        if let Err(e) = archive::keep(data_dir.path(), &snapshot, &source) {
            tracing::warn!(error = %e, "the text of the rules of now cannot be kept for reviewers");
        }
        let open: Vec<_> = journal.head().state.open.into_keys().collect();
        let world = World { journal: journal.clone(), keys, metrics: Arc::new(Metrics::new()), scanner };
        let state = journal.head().state;
        let gate = Gate::new(world, snapshot)
            .in_shadow(shadow)
            .counting(config.budgets.clone(), state.counted)
            .serving(Apps::new(config.apps.apps.clone()))
            .holding(state.acks, config.held_for);
        let gate = Arc::new(gate);
        if !open.is_empty() {
            tracing::warn!(
                count = open.len(),
                "allowed proposals had no outcome when the gateway stopped: recorded as unknown"
            );
        }
        pipeline::settle_crashed(&gate, open).await.map_err(Failure::failed)?;
        let held = gate.acks(|live| live.acks.parked.keys().chain(live.acks.kept.keys()).cloned().collect::<Vec<_>>());
        match gate.ports.keys.tidy(&held) {
            Ok(0) => {}
            Ok(gone) => tracing::info!(gone, "keys of what is not held any more are destroyed"),
            Err(e) => tracing::error!(error = %e, "keys of what is not held any more are still there"),
        }
        let governor = Arc::new(Governor::new(gate.clone(), config.setup.clone(), source, config.compositions()?));
        governor.started().await.map_err(Failure::failed)?;
        if !added.is_empty() {
            let digests = (*gate.snapshot().digests).clone();
            let change = PolicyChange {
                event: PolicyEvent::Catalogued,
                digests,
                operator: None,
                tools: added,
                modes: std::collections::BTreeMap::new(),
                shadow,
            };
            let record = Record::new(now(), Body::Policy(change));
            gate.ports.append(record, Room::Reserved).await.map_err(Failure::failed)?;
        }
        let identities = Arc::new(RwLock::new(Identities::load(data_dir.path())?));
        let view = Arc::new(Shelf::default());
        open_view(data_dir.path(), &journal, view.clone())?;
        let notary = Notary::start(journal.clone(), signer, config.signing.every)?;
        let witnesses = Arc::new(Witnesses::start(&config.witnesses, &notary, &journal, data_dir.path()));
        let (stop, stopped) = watch::channel(false);
        let reserved = Reserved::with(config.setup.reserved_keys.clone());
        let tasks = Arc::new(TaskBook::new(gate.clone(), data_dir.path().join("tasks"), reserved));
        tasks.take_up();
        if let Err(e) = tasks.tidy() {
            tracing::warn!(error = %e, "state documents of tasks that are over stay on the disk");
        }
        let llm = Arc::new(Llm::new(
            gate.clone(),
            config.engines.clone(),
            config.given.clone(),
            tasks.clone(),
            config.setup.settings,
        ));
        let Handled { hub, runner, executor } = handled(config, &gate, &llm, data_dir.path())?;
        let acker =
            Arc::new(Acker::new(gate.clone(), governor.clone(), config.setup.settings, executor.zip(runner.clone())));
        let reserved = Reserved::with(config.setup.reserved_keys.clone());
        let schemas = config.apps.schemas.clone();
        let sessions = Arc::new(SessionBook::new(gate.clone(), acker.clone(), schemas, reserved));
        let operators = Arc::new(OperatorPlane {
            gate: gate.clone(),
            governor: governor.clone(),
            identities: identities.clone(),
            view: view.clone(),
            worker_uids: config.uids.iter().filter_map(|(name, uid)| Some(((*uid)?, name.clone()))).collect(),
            same_uid: config.same_uid,
            allowed_hosts: config.allowed_hosts.clone(),
            notary: notary.clone(),
            signer_is_given: config.signing.key.is_some(),
            witnesses: witnesses.clone(),
            changing: tokio::sync::Mutex::default(),
            secrets: config.secrets.clone(),
            engines: config.engines.clone(),
            acker: acker.clone(),
            sessions: sessions.clone(),
            runner: runner.clone(),
            hub,
        });
        // Who finds the gate open finds the operators' door open as well.
        let socket = data_dir.path().join("operator.sock");
        serve_socket(&socket, operators.clone(), stopped.clone())?;
        if let Some(address) = config.operator_listen {
            serve_operators_tcp(address, operators.clone(), stopped.clone()).await?;
        }
        let listener = TcpListener::bind(config.listen).await.map_err(|e| in_use(config.listen, &e))?;
        let address = listener.local_addr()?;
        tasks.reached_at(config.public_url.clone().unwrap_or_else(|| format!("http://{address}")));
        let tracer = config
            .traces
            .as_ref()
            .map(|collector| Tracer::start(&journal, collector.clone(), gate.ports.metrics.clone()));
        let workers = Arc::new(WorkerPlane::new(
            gate.clone(),
            governor.clone(),
            identities.clone(),
            config.setup.settings,
            config.allowed_hosts.clone(),
            config.public_url.clone(),
            llm,
            sessions.clone(),
        ));
        config.notify.clone().start(gate.clone(), stopped.clone());
        if let Some(runner) = runner {
            schedule::start(runner, stopped.clone());
        }
        acker.take_up();
        serve_workers(listener, workers.clone(), stopped);
        let gateway = Self {
            address,
            socket,
            gate,
            governor,
            identities,
            workers,
            view,
            notary,
            witnesses,
            tracer,
            stop,
            data_dir,
        };
        gateway.look_after(watch_policies, acker, sessions);
        gateway.keep_to(config.retain, operators);
        Ok(gateway)
    }

    /// What happens by itself: denials are counted out, idle connections closed, held proposals expire, and with
    /// `--watch` a changed policy folder decides.
    fn look_after(&self, watch_policies: bool, acker: Arc<Acker>, sessions: Arc<SessionBook>) {
        let (gate, workers, governor) = (self.gate.clone(), self.workers.clone(), self.governor.clone());
        let mut stopped = self.stop.subscribe();
        tokio::spawn(async move {
            let mut told = String::new();
            loop {
                let pause = if watch_policies { Duration::from_millis(500) } else { SWEEP };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stopped.wait_for(|stop| *stop) => return,
                }
                workers.sweep();
                workers.llm.tasks.sweep().await;
                sessions.sweep().await;
                gate.ports.scanner.tick(now());
                gate.sweep(false).await;
                // What could not run when it was granted: a budget or a disk was full.
                acker.take_up();
                if let Err(e) = pipeline::ack::expire(&gate).await {
                    // It is tried again at the next sweep.
                    tracing::error!(error = %e, "something that has expired is still there");
                }
                if watch_policies {
                    match governor.apply_if_changed().await {
                        Ok(true) => tracing::warn!("--watch: the changed policy folder decides now"),
                        Ok(false) => told.clear(),
                        Err(e) if e.to_string() != told => {
                            told = e.to_string();
                            tracing::error!(
                                "--watch: the policy folder cannot be applied, the old policies still decide:\n{told}"
                            );
                        }
                        Err(_) => {}
                    }
                }
            }
        });
    }

    /// Drops what is not kept any more, now and every so often.
    fn keep_to(&self, retain: Retain, operators: Arc<OperatorPlane>) {
        if retain == Retain::default() {
            return;
        }
        let mut stopped = self.stop.subscribe();
        tokio::spawn(async move {
            loop {
                if let Err(e) = operators.drop_old(retain, None).await {
                    tracing::error!(error = %e, "retention could not drop old segments");
                }
                tokio::select! {
                    () = tokio::time::sleep(RETENTION) => {}
                    _ = stopped.wait_for(|stop| *stop) => return,
                }
            }
        });
    }

    /// The folder it writes to.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// Takes nothing new, finishes or aborts what is in flight, and writes everything down.
    pub async fn stop(self) {
        self.workers.stop(PATIENCE).await;
        // What was in flight has its answer by now, and records its outcome.
        let recorded = async {
            while self.gate.active() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, recorded).await;
        self.gate.sweep(true).await;
        let _ = self.stop.send(true);
        let journal = self.gate.ports.journal.clone();
        let (view, notary) = (self.view.clone(), self.notary.clone());
        let closed = tokio::task::spawn_blocking(move || {
            journal.close();
            if let Err(e) = notary.close() {
                tracing::error!(error = %e, "the last checkpoint could not be signed");
            }
            view.get().map(|view| view.close())
        });
        if let Ok(Some(Err(e))) = closed.await {
            tracing::warn!(error = %e, "the view could not be closed; it will catch up at the next start");
        }
        if let Some(tracer) = self.tracer {
            tracer.finish().await;
        }
        // Witnesses have the last word of the log, if they are there.
        let signed = self.notary.latest().borrow().as_ref().map_or(0, |signed| signed.checkpoint.size);
        self.witnesses.settle(signed, WITNESS_PATIENCE).await;
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// What handles an inbox.
struct Handled {
    hub: Option<Embedded>,
    runner: Option<Arc<Runner>>,
    executor: Option<Arc<Executor>>,
}

/// The inbox worker, where one is configured, and the hub that it finds its messages at.
fn handled(config: &Config, gate: &Arc<Gate<World>>, llm: &Arc<Llm>, data_dir: &Path) -> Result<Handled, Failure> {
    let Some(inbox) = &config.inbox else { return Ok(Handled { hub: None, runner: None, executor: None }) };
    let (hub, at): (Option<Embedded>, Arc<dyn Hub>) = match &inbox.hub {
        Some(http) => (None, Arc::new(RemoteHub::new(http.clone()))),
        None => {
            let hub = Embedded::open(data_dir)?;
            (Some(hub.clone()), Arc::new(hub))
        }
    };
    let executor = Arc::new(Executor::new(at));
    let runner = Runner::new(gate.clone(), llm.clone(), executor.clone(), inbox.setup.clone(), data_dir);
    let runner = Arc::new(runner.map_err(Failure::invalid)?);
    Ok(Handled { hub, runner: Some(runner), executor: Some(executor) })
}

/// Connections are files: as many as the system lets a process have.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(error = %e, "the number of open files stays limited");
    }
}

/// What the journal must be: its own last checkpoint, and what witnesses have.
pub fn anchors(data_dir: &Path, keys: &[VerifierKey], witnesses: &[Witness]) -> std::io::Result<Vec<Anchor>> {
    let mut all: Vec<Anchor> = checkpoint::anchor(&checkpoint::file(data_dir), keys)?.into_iter().collect();
    all.extend(witness::anchors(data_dir, witnesses, keys)?);
    Ok(all)
}

/// The log says what it is signed with; another key is another one's, unless an operator says that it is new.
async fn signs_on(journal: &Journal, keys: &Keys, signer: &SignerKey, is_new: bool) -> Result<(), Failure> {
    let (own, known) = (signer.verifier().to_string(), journal.head().state.verifier);
    if known.as_ref() == Some(&own) {
        return keys.keep_verifier(signer.verifier()).map_err(Into::into);
    }
    // A rotation that was broken off before it was recorded left both keys behind.
    let rotated = known.as_ref().is_some_and(|known| {
        let all: Vec<String> = keys.verifiers().into_iter().flatten().map(|key| key.to_string()).collect();
        all.contains(known) && all.last() == Some(&own)
    });
    if let Some(known) = known.as_ref().filter(|_| !is_new && !rotated) {
        return Err(Failure::no(format!(
            "the log is signed with `{known}`, and the key that is there is `{own}`: put the right key back, or say with `serve --new-checkpoint-key` that this is a new one"
        )));
    }
    keys.keep_verifier(signer.verifier())?;
    let change = KeyChange { verifier: own, replaces: known, operator: None };
    let record = Record::new(now(), Body::Key(change));
    journal.append(record, Room::Reserved).await.map_err(Failure::failed)?;
    Ok(())
}

async fn blocking<T: Send + 'static, E: Into<Failure> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::failed)?.map_err(Into::into)
}

/// Opens the view, lets it catch up, and follows the journal until that is closed.
fn follow(dir: &Path, journal: &Journal, shelf: &Shelf) -> std::io::Result<()> {
    let mut committed = journal.committed();
    let mut reader = journal.reader();
    let view = Arc::new(View::open(dir, reader.first()?, journal.next_seq())?);
    let mut told = Instant::now();
    view.catch_up(&mut reader, journal.next_seq(), |done, all| {
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            tracing::info!(done, all, "the queryable log is made from the journal");
        }
    })?;
    shelf.put(Some(view.clone()));
    loop {
        let mut news = committed.blocking_recv();
        loop {
            match news {
                Ok(record) if record.seq < view.next() => {}
                Ok(record) if record.seq == view.next() => view.add(record.seq, &record.record)?,
                Ok(_) | Err(RecvError::Lagged(_)) => view.catch_up(&mut reader, journal.next_seq(), |_, _| {})?,
                Err(RecvError::Closed) => return Ok(()),
            }
            news = match committed.try_recv() {
                Ok(record) => Ok(record),
                Err(TryRecvError::Lagged(n)) => Err(RecvError::Lagged(n)),
                Err(TryRecvError::Closed) => Err(RecvError::Closed),
                Err(TryRecvError::Empty) => break,
            };
        }
        // Records come one by one under load: a thread that woke for each would take the time from what decides.
        std::thread::sleep(VIEW_PAUSE);
    }
}

/// Keeps the view, off the hot path.
fn open_view(data_dir: &Path, journal: &Journal, shelf: Arc<Shelf>) -> Result<(), Failure> {
    let (dir, journal) = (data_dir.join("view"), journal.clone());
    let thread = std::thread::Builder::new().name("view".into()).spawn(move || {
        // What decides goes before what is looked up.
        if let Err(e) = rustix::process::setpriority_process(None, 10) {
            tracing::debug!(error = %e, "the view runs at ordinary priority");
        }
        while let Err(e) = follow(&dir, &journal, &shelf) {
            tracing::error!(error = %e, "the queryable log stopped, and is opened again in a moment; decisions go on");
            shelf.put(None);
            std::thread::sleep(VIEW_AGAIN);
        }
    });
    thread.map(drop).map_err(Failure::from)
}

fn serve_socket(socket: &Path, plane: Arc<OperatorPlane>, mut stopped: watch::Receiver<bool>) -> Result<(), Failure> {
    // The folder is locked, so a socket that is there was left by a Warden that is gone.
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at(socket, &e)),
        _ => {}
    }
    // The folder is 0700 until the socket's own mode is set.
    let listener = UnixListener::bind(socket).map_err(|e| at(socket, &e))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(|e| at(socket, &e))?;
    let service = plane.router().into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move {
        let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
        tokio::select! { _ = axum::serve(listener, service) => {}, () = stop => {} }
    });
    Ok(())
}

async fn serve_operators_tcp(
    address: SocketAddr,
    plane: Arc<OperatorPlane>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|e| in_use(address, &e))?;
    tokio::spawn(async move {
        let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
        tokio::select! { _ = axum::serve(listener, plane.router()) => {}, () = stop => {} }
    });
    Ok(())
}

fn serve_workers(listener: TcpListener, plane: Arc<WorkerPlane>, mut stopped: watch::Receiver<bool>) {
    tokio::spawn(async move {
        let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
        tokio::select! { () = listener::serve(listener, plane.router()) => {}, () = stop => {} }
    });
}

fn at(path: &Path, e: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot listen on `{}`: {e}", path.display()))
}

fn in_use(address: SocketAddr, e: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot listen on {address}: {e}; choose another address with `listen` in warden.yaml"))
}
