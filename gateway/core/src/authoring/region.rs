//! What must never be allowed, whatever operators write: the charter's promises, said a second time and independently of its
//! rules. A proof holds the one against the other.

/// Requests that no policy may allow.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// A short name.
    pub name: &'static str,
    /// What would happen if one were allowed.
    pub says: &'static str,
    /// Exactly these requests, as one permit.
    pub policy: &'static str,
}

/// All regions.
pub const REGIONS: [Region; 11] = [
    Region {
        name: "secret",
        says: "a secret value passes",
        policy: r#"permit (principal, action, resource) when { context.secret_findings != 0 };"#,
    },
    Region {
        name: "irreversible",
        says: "an irreversible tool runs unattended",
        policy: r#"permit (principal, action in Action::"call_tool", resource) when { resource.effect == Effect::"irreversible" && !context.acknowledged };"#,
    },
    Region {
        name: "production",
        says: "a tool touches production unattended",
        policy: r#"permit (principal, action in Action::"call_tool", resource) when { resource.effect == Effect::"production" && !context.acknowledged };"#,
    },
    Region {
        name: "unseen",
        says: "arguments that policy cannot see pass unattended",
        policy: r#"permit (principal, action in Action::"call_tool", resource) when { !context.unseen.isEmpty() && !context.acknowledged };"#,
    },
    Region {
        name: "dot_segments",
        says: "a path with `..` passes unattended",
        policy: r#"permit (principal, action, resource) when { context.dot_segments && !context.acknowledged };"#,
    },
    Region {
        name: "changed_tool",
        says: "a tool with a changed definition runs unattended",
        policy: r#"permit (principal, action in Action::"call_tool", resource) when { resource.changed && !context.acknowledged };"#,
    },
    Region {
        name: "reserved_state",
        says: "a worker writes reserved state",
        policy: r#"permit (principal is Worker, action == Action::"write_state", resource) when { resource.reserved };"#,
    },
    Region {
        name: "operators_only",
        says: "a worker governs",
        policy: r#"permit (principal is Worker, action in Action::"govern", resource);"#,
    },
    Region {
        name: "own_proposal",
        says: "an operator acknowledges for a worker of their own",
        policy: r#"permit (principal is Operator, action == Action::"acknowledge", resource) when { context.input.own };"#,
    },
    Region {
        name: "catalog_diff",
        says: "a worker changes the routing catalogue",
        policy: r#"permit (principal, action == Action::"propose_catalog_diff", resource);"#,
    },
    Region {
        name: "dry_run",
        says: "a dry run does something at the hub",
        policy: r#"permit (principal, action in Action::"inbox", resource) when { context.mode == Mode::"dry_run" };"#,
    },
];

/// The actions, and groups of them, that the charter shuts altogether: there, nothing being allowed is what is meant.
pub const SHUT: [&str; 2] = ["govern", "propose_catalog_diff"];
