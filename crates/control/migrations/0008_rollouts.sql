-- Staged rollouts: what a report is about, how far rollouts are, and what their gates decided.

-- The activations that a report is about, `pol_…:generation` separated by spaces. Nothing in reports from before: they are
-- about every activation up to their generation.
ALTER TABLE rollout_report ADD COLUMN bundles TEXT;

-- The last count of the stages of a rollout that is under way.
CREATE TABLE rollout_progress (
    tenant_id UUID NOT NULL,
    rollout_id UUID NOT NULL,
    stages TEXT NOT NULL,
    counted_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, rollout_id)
);

CREATE TABLE rollout_decision (
    tenant_id UUID NOT NULL,
    rollout_id UUID NOT NULL,
    number BIGINT NOT NULL,
    stage TEXT NOT NULL,
    at BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    method TEXT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    numbers TEXT NOT NULL,
    PRIMARY KEY (tenant_id, rollout_id, number)
);
