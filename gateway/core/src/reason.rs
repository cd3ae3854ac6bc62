//! Reason codes: why something was refused. Each has a page, generated from this table.

/// One code.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    /// The stable code.
    pub code: &'static str,
    /// What happened, for an operator.
    pub meaning: &'static str,
    /// What a worker can do. It is told no more than this.
    pub advice: &'static str,
    /// What an operator can do.
    pub remedy: &'static str,
}

macro_rules! reasons {
    ($($code:literal: $meaning:literal, $advice:literal, $remedy:literal;)*) => {
        /// Every code Warden gives by itself. Rules of a site add their own with `@reason`.
        pub const REASONS: &[Reason] = &[$(Reason { code: $code, meaning: $meaning, advice: $advice, remedy: $remedy }),*];
    };
}

reasons! {
    "allowed": "A permit matched in every layer and nothing forbade it.",
        "nothing to do", "Nothing to do.";
    "not_enforced": "The site is in shadow (`serve --shadow`): its rules refuse this, `would_be` says how, and it was let through. The charter permits it.",
        "nothing to do", "Look at `warden audit query --enforced shadow`, write the missing permits, and serve without `--shadow`.";
    "tool_changed": "The server lists the tool with another definition than the catalogue's, and no operator has approved that.",
        "wait until an operator has looked at the tool's new definition", "`warden tools list` shows what changed; `warden tools approve SERVER/TOOL` accepts it.";
    "not_on_allowlist": "No site permit matches, acknowledged or not. This is the default.",
        "use another tool, or ask an operator to allow this one", "Write a permit into `policies/`, check it with `warden policy check`, and apply it.";
    "acknowledgement_required": "A permit matches only once a named person has acknowledged this exact call.",
        "wait for a person's acknowledgement, then send the very same call again", "`warden ack show ID`, then `warden ack grant ID --reason …` or `warden ack refuse ID --reason …`.";
    "acknowledgement_refused": "A person said no to this very proposal, and it was made again.",
        "do something else: a person has refused this", "Nothing to do. It can be asked again when the refused one would have expired.";
    "acknowledgement_void": "A person said yes, and by the time it was to run it was no more what was acknowledged, or not allowed.",
        "send the call again, so that a person can look at it as it is now", "`warden ack list --over` says what has changed: the tool, the charter, or what policies say.";
    "acknowledgement_over": "The held proposal is over: it ran, or was given away, or is not this worker's.",
        "send the call again if it is still needed: it will be decided anew", "Nothing to do.";
    "acknowledgement_expired": "Nobody acknowledged the held proposal in time, or nobody came for it.",
        "send the call again if it is still needed", "`held_for_h` in `warden.yaml` says how long proposals are held.";
    "charter_changed": "The charter is another one than the proposal was held under.",
        "send the call again", "Nothing to do.";
    "tool_changed_since": "The tool is not defined any more as it was when the proposal was held.",
        "send the call again, so that a person can look at it as it is now", "`warden tools list` shows what changed.";
    "too_many_held": "So many proposals of this worker are held that no more are.",
        "wait until a person has looked at what is held", "`warden ack list --worker NAME`; a scope acknowledges many that are alike.";
    "held_with_others": "One write would change a member that a person has to acknowledge, and others with it.",
        "write the member that is held by itself", "Nothing to do.";
    "not_the_held_call": "A request brought the state of a held call, and is another call.",
        "send the held call unchanged, or a new one without `requestState`", "Nothing to do.";
    "own_proposal": "An operator would acknowledge a proposal of a worker that is the operator's own.",
        "ask another operator", "Another operator has to look at it.";
    "one_by_one": "What touches production is acknowledged one by one, not by a scope.",
        "acknowledge this one alone", "Change `policies/acknowledge.cedar` if that is too strict here.";
    "left_for_human": "A change of the routing catalogue is never applied by a worker. It is kept for a person.",
        "nothing to do: a person looks at it", "`warden hub inbox AGENT --kept` shows what is kept; apply it by hand, or do not.";
    "dry_run": "A dry run does nothing.",
        "run it with --execute", "Nothing to do.";
    "secret_in_message": "A message of the inbox holds a secret value, or what looks like one. No brain was shown it.",
        "nothing to do: a person looks at it", "Find out how the value got into a message, and rotate it.";
    "secret_custody": "A message of the inbox speaks of secrets. No brain was asked about it.",
        "nothing to do: a person looks at it", "Answer it yourself.";
    "secret_in_plan": "The plan for a message holds a secret value, or what looks like one.",
        "nothing to do: a person looks at it", "Find out where the brain has the value from.";
    "brain_escalated": "The brain would rather have a person look at the message.",
        "nothing to do: a person looks at it", "Answer it yourself, or add a route that fits.";
    "brain_malformed": "What the model said holds no plan.",
        "nothing to do: a person looks at it", "Look at the brief and at the engine's model.";
    "brain_empty": "The model said nothing.",
        "nothing to do: a person looks at it", "Look at the engine: `warden engines ping`.";
    "brain_transport": "The engine gave no answer.",
        "nothing to do: a person looks at it", "Look at the engine: `warden engines ping`.";
    "nothing_planned": "The plan has no action.",
        "nothing to do: a person looks at it", "Look at the brief.";
    "too_many_actions": "The plan has more actions than any message needs.",
        "nothing to do: a person looks at it", "Look at the message: somebody may be playing tricks.";
    "too_many_answers": "The plan answers one message more than once.",
        "nothing to do: a person looks at it", "Look at the brief.";
    "action_unknown": "The plan has an action that there is none of.",
        "nothing to do: a person looks at it", "Look at the message: somebody may be playing tricks.";
    "action_malformed": "An action of the plan has members that it has not, or lacks one.",
        "nothing to do: a person looks at it", "Look at the message: somebody may be playing tricks.";
    "other_message": "An action of the plan is about another message.",
        "nothing to do: a person looks at it", "Look at the message: somebody may be playing tricks.";
    "route_unknown": "The plan names a route that the routing catalogue has not.",
        "nothing to do: a person looks at it", "Add the route, if there should be one.";
    "answer_too_long": "An answer of the plan is longer than an answer to a message.",
        "nothing to do: a person looks at it", "Look at the brief.";
    "message_too_large": "A message is longer than any that is handled.",
        "nothing to do: a person looks at it", "Read it yourself.";
    "message_of_another": "The hub gave a message that is for another agent.",
        "nothing to do", "Look at the hub.";
    "message_unreadable": "The hub gave something that is no message.",
        "nothing to do", "Look at the hub.";
    "unchanged": "The message waits for a person, and nothing has changed since it was last looked at.",
        "nothing to do: a person looks at it", "Answer it, or mark it as read.";
    "empty": "The plan would say nothing, so nothing was said.",
        "nothing to do: a person looks at it", "Answer it yourself.";
    "hub_refused": "The hub said no to a write.",
        "nothing to do: it is tried again with the next run", "Look at the hub.";
    "hub_not_reached": "The hub was not reached: nothing was done.",
        "nothing to do: it is tried again with the next run", "Look at the hub.";
    "hub_no_answer": "The hub was reached and gave no answer: nobody knows whether it was done.",
        "nothing to do: it is tried again with the next run, under the same idempotency key", "Look at the hub.";
    "not_kept": "A catalogue diff could not be kept.",
        "nothing to do: it is tried again with the next run", "Look at the disk of the data folder.";
    "worker_failed": "Handling a message broke off.",
        "nothing to do: it is tried again with the next run", "This is a defect of Warden: report it.";
    "unknown_inbox": "No inbox of this name is configured.",
        "use a configured inbox", "Set `inbox` in `warden.yaml`.";
    "secret_found": "What would have been forwarded holds a secret value.",
        "send a handle or a reference instead of the value", "Find out how the value reached the worker, and rotate it.";
    "irreversible_effect": "The tool's effect is irreversible, or nobody has classified the tool.",
        "wait for a person's acknowledgement, or use a tool whose effect can be taken back", "If the tool is harmless: `warden tools classify SERVER/TOOL read` (or `write`).";
    "production_effect": "The tool touches production, or is not in the catalogue.",
        "wait for a person's acknowledgement", "Check `warden tools list`: a tool that is not catalogued counts as the worst.";
    "unseen_arguments": "Policy cannot see all arguments of the call; `unseen` in the record names them.",
        "leave out the arguments that policy cannot see, or wait for a person's acknowledgement", "Prefer tools whose schema declares its arguments.";
    "dot_segments": "A path argument has a `..` segment, plain or percent-encoded.",
        "send the path without `..`", "Nothing to do, unless the argument is no path: then tell the server's author to rename it.";
    "reserved_key": "A worker wrote to a state key that belongs to its host.",
        "use another key", "Nothing to do.";
    "operators_only": "A worker reached for the schedule, the policies or the operator plane.",
        "use the worker plane", "Find out why the worker tried.";
    "forbidden": "A forbid of the site or the composition matched, and gives no reason of its own.",
        "ask an operator", "Add `@reason` and `@advice` to the rule that `policies` names.";
    "policy_error": "A policy failed while it was evaluated. Cedar would skip it; Warden refuses.",
        "ask an operator", "Mend the policy that `errors` names: overflow and absent attributes are the usual causes.";
    "request_invalid": "The facts do not fit the schema of the snapshot.",
        "ask an operator", "This is a defect of Warden: report it.";
    "composition_unresolved": "The worker is bound to a composition that cannot be resolved.",
        "ask an operator", "Register the composition, or take the binding out of the configuration.";
    "argument_undeclared": "An argument is not declared by the tool's schema.",
        "send only arguments that the tool declares", "If the server's schema changed, look at `warden tools show SERVER/TOOL`.";
    "argument_missing": "An argument that the tool's schema requires is missing.",
        "send every required argument", "Nothing to do.";
    "argument_wrong_type": "An argument is not of the type that the tool's schema says.",
        "send the argument in its declared type", "Nothing to do.";
    "argument_out_of_range": "A number cannot be represented exactly, so policy could see another value than the tool.",
        "send an integer of 64 bits, or at most four decimals", "Nothing to do.";
    "argument_not_in_enum": "A text is not among those that the tool's schema lists.",
        "send one of the declared values", "Nothing to do.";
    "malformed_request": "A request could not be read as the method it names.",
        "send a request that fits the protocol", "Nothing to do.";
    "unknown_method": "The method is not known to Warden, so nothing can be decided about it.",
        "use a method of the protocol", "If it is a new method of MCP, a newer Warden may know it.";
    "unknown_type": "The action is not for entities of these types.",
        "ask about the types that the site's schema declares for the action", "Look at the action's `appliesTo` in `schemas/site/`.";
    "subject_of_another": "A caller asked about somebody else, and its token is not of role `pep`.",
        "ask about yourself", "If the caller enforces decisions for others: `warden token issue WORKER --role pep`.";
    "unknown_server": "No server of this name is configured.",
        "use a configured server", "Add the server to `warden.yaml`.";
    "unknown_worker": "No worker of this name is configured.",
        "ask an operator for a token", "Add the worker to `warden.yaml`.";
    "task_of_another": "The task was not started by this worker through this gateway, or before its last start.",
        "ask about tasks that you started yourself", "Nothing to do. After a restart, workers start their tasks again.";
    "not_in_composition": "The site permits it, and the composition that the worker is bound to, or a node above it, does not.",
        "use a tool of your own node, or let the agent above you do it", "`warden composition show NAME` shows the nodes; what may be done is the least of all maps that have a say.";
    "unknown_session": "The session is not one of this worker's, or there is none of that name.",
        "name a session of your own, or start one with `POST /v1/sessions`", "`warden session list --worker NAME`.";
    "unknown_app": "No such app is declared, or not any more.",
        "ask an operator which apps there are", "`warden apps check`; apps stand in `apps/` beside `warden.yaml`.";
    "unknown_node": "The composition of the worker has no such node below it.",
        "name a node below your own: `GET /v1/tokens` lists them", "`warden composition show NAME` shows the nodes.";
    "server_of_an_app": "The server is for sessions of an app that declares it. The call belongs to no session, or to one of another app.",
        "start a session of the app with `POST /v1/sessions` and send its id as `x-warden-session`", "Take the server out of the app's `servers` if it is for everybody.";
    "uncountable_argument": "A fact of the app adds up an argument that is no whole number, or a negative one.",
        "send a whole number that is not negative", "Let the fact sum another argument, or make the tool's schema say `integer` with `minimum: 0`.";
    "history_full": "So many calls or values of one session are counted that another could not be.",
        "end the session and start another", "Give the fact a shorter window, or count something that has fewer values.";
    "session_stopped": "A person has stopped the session.",
        "do nothing more in this session", "Start another session if the work is to go on.";
    "session_busy": "Somebody is changing the session, or a call of it is on its way.",
        "try again in a second", "Nothing to do.";
    "too_many_sessions": "As many sessions of the app are open as it lets be.",
        "end a session first", "Raise `max_sessions` of the app, or set `max_open_s`.";
    "result_withheld": "The call ran, and its result holds a secret value, so nobody was given it.",
        "the call ran, and its result is withheld: do not repeat it", "The outcome record names the format and the place. Keep the secret out of what the server returns.";
    "budget_exceeded": "A budget has less left than the call needs at most, or the call used more than the budget had. Nothing was sent in the first case.",
        "stop, or ask an operator for more budget: trying again does not help", "`warden budget show NAME`; `warden budget grant NAME` gives more, and so does a higher limit in `warden.yaml`.";
    "budget_frozen": "An operator froze a budget that the call is charged to.",
        "wait for an operator", "`warden budget show NAME`; `warden budget freeze NAME --off` lets it go on.";
    "price_missing": "A budget that the call is charged to counts money, and nobody has said what the model costs.",
        "use a model that has a price, or ask an operator", "Add the model to the engine's `prices` in `warden.yaml`.";
    "no_enclosing_task": "An engine is called in a task that is not open, or of another worker or session; or in none where the worker has to name one.",
        "open a task with `POST /v1/tasks`, and name it", "Nothing to do, unless workers forget to close tasks: `warden budget list --by task`.";
    "lease_invalid": "The lease that was shown is not that of the task: made up, of another task or worker, or of a time that is over.",
        "use the lease that came with the task", "Find out how the worker came by it.";
    "too_many_tasks": "The worker has as many open tasks as it may have.",
        "close tasks that are done", "Find out why the worker does not close its tasks.";
    "hosts_only": "A worker said of a task what only its host may say: for whom it is, its session, its run, its zone.",
        "leave that out", "If the caller is a host: `warden token issue WORKER --role host`.";
    "unknown_engine": "No engine of this name is configured.",
        "use a configured engine: `GET /v1/engines` lists them", "Add the engine to `warden.yaml`.";
    "unknown_model": "No engine that speaks this API serves the model.",
        "use another model: `GET /v1/models` lists those that are named, and an operator knows the rest", "Add the model to an engine's `models` in `warden.yaml`.";
    "engine_lacks_api": "The engine does not speak the API that it was asked through.",
        "use another engine, or another API", "Look at `speaks` of the engine in `warden.yaml`.";
    "engine_not_in_zone": "The engine is not allowed in the zone of the worker or its task, or the zone is not configured.",
        "use an engine of the zone", "Look at `zones` in `warden.yaml`.";
    "journal_full": "The disk is full. Denials and operators' records still fit; nothing else moves.",
        "try again later", "Make room on the disk of the data folder.";
    "journal_failed": "The decision could not be written down, so nothing was forwarded. Nothing will be until a restart has verified the journal.",
        "try again later", "Look at the log, mend the disk, and restart: `warden audit verify` says what is there.";
    "journal_busy": "Too many decisions wait to be written.",
        "try again in a moment", "The disk is slower than the workers: move the data folder to a faster one.";
    "seal_failed": "The arguments could not be sealed, so the call could not be held.",
        "try again later", "Look at the permissions of `keys/` in the data folder.";
}

/// What a worker is told for a code.
pub fn advice(code: &str) -> Option<&'static str> {
    REASONS.iter().find(|reason| reason.code == code).map(|reason| reason.advice)
}
