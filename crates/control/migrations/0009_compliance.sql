-- What devices do not comply with, since when, and how that went.

-- One row for each subject of a policy that a device does not meet; `resolved_at` makes it history.
CREATE TABLE compliance_violation (
    tenant_id UUID NOT NULL,
    violation_id UUID NOT NULL,
    device_id UUID NOT NULL,
    policy_id UUID NOT NULL,
    subject TEXT NOT NULL,
    severity TEXT NOT NULL,
    reason TEXT NOT NULL,
    since BIGINT NOT NULL,
    -- Nobody knows since then whether it goes on: a fact is missing, or a newer policy waits for its report.
    unknown_since BIGINT,
    -- The rule's remediation as JSON, of the version that is active now.
    remediation TEXT,
    grace_until BIGINT,
    steps_done BIGINT NOT NULL,
    next_at BIGINT,
    escalated_at BIGINT,
    resolved_at BIGINT,
    PRIMARY KEY (tenant_id, violation_id)
);

CREATE UNIQUE INDEX compliance_violation_open ON compliance_violation (tenant_id, device_id, policy_id, subject)
    WHERE resolved_at IS NULL;

CREATE INDEX compliance_violation_subject ON compliance_violation (tenant_id, policy_id, subject)
    WHERE resolved_at IS NULL AND unknown_since IS NULL;

CREATE INDEX compliance_violation_severity ON compliance_violation (tenant_id, severity, violation_id)
    WHERE resolved_at IS NULL;

CREATE INDEX compliance_violation_listed ON compliance_violation (tenant_id, violation_id) WHERE resolved_at IS NULL;

CREATE INDEX compliance_violation_escalated ON compliance_violation (tenant_id, escalated_at)
    WHERE resolved_at IS NULL AND escalated_at IS NOT NULL;

CREATE INDEX compliance_violation_due ON compliance_violation (tenant_id, next_at)
    WHERE resolved_at IS NULL AND next_at IS NOT NULL;

CREATE INDEX compliance_violation_device ON compliance_violation (tenant_id, device_id, resolved_at);

CREATE INDEX compliance_violation_age ON compliance_violation (resolved_at) WHERE resolved_at IS NOT NULL;

-- How a device was last evaluated. Its row is locked while a verdict is stored.
CREATE TABLE compliance_device (
    tenant_id UUID NOT NULL,
    device_id UUID NOT NULL,
    state TEXT NOT NULL,
    -- Digest of the policies that it was evaluated by, empty before the first time.
    policies_sha256 TEXT NOT NULL,
    -- Which subjects had a verdict other than "unknown": a row of `compliance_judged`.
    judged_sha256 BYTEA,
    evaluated_at BIGINT NOT NULL,
    recheck_at BIGINT,
    report_wanted_at BIGINT,
    report_asked_at BIGINT,
    -- Entries that verdicts of this device wrote in an hour.
    logged_hour BIGINT NOT NULL,
    logged BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);

CREATE INDEX compliance_device_recheck ON compliance_device (tenant_id, recheck_at) WHERE recheck_at IS NOT NULL;

CREATE INDEX compliance_device_judged ON compliance_device (tenant_id, judged_sha256);

-- Sets of judged subjects, shared by devices: a JSON list of [policy, subject].
CREATE TABLE compliance_judged (
    tenant_id UUID NOT NULL,
    judged_sha256 BYTEA NOT NULL,
    subjects TEXT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, judged_sha256)
);

CREATE TABLE compliance_change (
    tenant_id UUID NOT NULL,
    change_id UUID NOT NULL,
    device_id UUID NOT NULL,
    at BIGINT NOT NULL,
    from_state TEXT NOT NULL,
    to_state TEXT NOT NULL,
    PRIMARY KEY (tenant_id, change_id)
);

CREATE INDEX compliance_change_device ON compliance_change (tenant_id, device_id, change_id);

CREATE INDEX compliance_change_age ON compliance_change (at);

-- How many of the judged devices violated a subject, hour by hour.
CREATE TABLE compliance_share (
    tenant_id UUID NOT NULL,
    policy_id UUID NOT NULL,
    subject TEXT NOT NULL,
    hour BIGINT NOT NULL,
    violating BIGINT NOT NULL,
    judged BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, policy_id, subject, hour)
);

CREATE INDEX compliance_share_hour ON compliance_share (tenant_id, hour);

CREATE INDEX compliance_share_age ON compliance_share (hour);

-- Where the background work on a tenant stands.
CREATE TABLE compliance_tenant (
    tenant_id UUID NOT NULL PRIMARY KEY,
    served_at BIGINT NOT NULL,
    sampled_hour BIGINT NOT NULL,
    pass_generation BIGINT NOT NULL,
    pass_started_at BIGINT NOT NULL,
    -- The device that the running pass looked at last; NULL while none runs.
    pass_after UUID,
    pass_looked_at BIGINT NOT NULL,
    pass_evaluated BIGINT NOT NULL,
    budget_hour BIGINT NOT NULL,
    budget_used BIGINT NOT NULL,
    budget_refused BIGINT NOT NULL
);
