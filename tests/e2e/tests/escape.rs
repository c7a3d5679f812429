//! Jobs that try to outlive themselves, or to decide for their agent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Scene, job};

e2e::on_every_forge! {
    what_a_job_leaves_behind_is_gone_while_its_runner_lives_on,
    a_job_that_attacks_its_agent_changes_nothing,
}

/// Processes in the group, in another session, doubly forked, without their environment, deaf, and with the job's output held open. Each says who it is.
const STRAYS: &str = r#"
rm -f /tmp/left.*
nohup sh -c 'echo $$ >/tmp/left.nohup; exec sleep 1000' >/dev/null 2>&1 &
setsid sh -c 'echo $$ >/tmp/left.session; exec sleep 1000' >/dev/null 2>&1 &
(setsid env -i PATH="$PATH" sh -c 'echo $$ >/tmp/left.hidden; while :; do sleep 0.1; done' >/dev/null 2>&1 &)
(setsid sh -c 'trap "" INT TERM HUP; echo $$ >/tmp/left.deaf; while :; do sleep 0.1; done' >/dev/null 2>&1 &)
for name in nohup session hidden deaf; do while [ ! -s /tmp/left.$name ]; do sleep 0.01; done; done
"#;

/// What the next job of the same runner finds. The agent hears of a job's end a moment later than the forge.
const GONE: &str = r#"
for file in /tmp/left.*; do
  for try in $(seq 600); do
    kill -0 "$(cat "$file")" 2>/dev/null || { rm "$file"; continue 2; }
    sleep 0.05
  done
  echo "$file survived"; exit 1
done
[ ! -e /tmp/left.hidden ] && echo nothing is left
"#;

async fn what_a_job_leaves_behind_is_gone_while_its_runner_lives_on(scene: Scene) {
    if !e2e::is_isolated("what_a_job_leaves_behind_is_gone_while_its_runner_lives_on") {
        return;
    }
    let mut second = job("second", GONE);
    second.needs = vec!["first".into()];
    let run = scene.run(&[job("first", STRAYS), second]);
    scene.launch(&["--idle-timeout=5s"]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    assert_eq!(scene.world.fleet.instances().len(), 1, "both on the same machine");
    assert!(scene.timeline().contains("nothing is left"), "{}", scene.timeline());
    scene.end().await;
}

/// It looks for what it could reach: the agent itself, its files, the words that hooks leave, and what runners say. Then it goes on working for longer
/// than the runner may idle: were anything of it believed, it would be cut off, or run twice.
const ATTACK: &str = r#"
agent=$(pgrep -x cml-agent | head -n 1)
[ -n "$agent" ]
for pid in $(pgrep -x cml-agent); do
  if kill -KILL "$pid" 2>/dev/null; then echo "killed the agent"; exit 1; fi
  if cat "/proc/$pid/environ" >/dev/null 2>&1; then echo "read its environment"; exit 1; fi
  if cat "/proc/$pid/mem" >/dev/null 2>&1; then echo "read its memory"; exit 1; fi
done
for path in /var/lib/cml/spec.json /var/lib/cml/state.json /var/lib/cml/power-off-timer; do
  if cat "$path" >/dev/null 2>&1; then echo "read $path"; exit 1; fi
  if echo x 2>/dev/null >"$path"; then echo "wrote $path"; exit 1; fi
done
if echo x 2>/dev/null >>/opt/cml/bin/cml-agent; then echo "wrote the agent"; exit 1; fi
if touch /var/lib/cml/online 2>/dev/null; then echo "touched the marker"; exit 1; fi
[ "$(ulimit -H -c)" = 0 ]
for word in completed "$(printf 'started\n1\n1\nocto/train\ntrain')" '../../x' ''; do
  for dir in /var/lib/cml/hooks; do
    printf '%s\n' "$word" >"$dir/job" 2>/dev/null || :
    sleep 0.1
  done
done
echo "$(date -u '+%Y-%m-%d %H:%M:%SZ'): Job attack completed with result: Succeeded"
echo "$(date -u '+%Y-%m-%d %H:%M:%SZ'): Listening for Jobs"
echo 'Runner connection is lost'
echo '{"level":"info","message":"runner status","status":"job_ended"}'
echo 'Job succeeded'
printf 'cml-phase name=online state=fail after=0 detail=forged\r\n'
(setsid sleep 1000 &)
sleep 3
echo attacked for nothing
"#;

async fn a_job_that_attacks_its_agent_changes_nothing(scene: Scene) {
    if !e2e::is_isolated("a_job_that_attacks_its_agent_changes_nothing") {
        return;
    }
    let run = scene.job(ATTACK);
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    assert!(scene.timeline().contains("attacked for nothing"), "{}", scene.timeline());
    scene.all_gone().await;
    assert_eq!(scene.world.forge.run(run).unwrap().attempt, 1, "nothing was run again");
    assert_eq!(scene.world.fleet.instances().len(), 1);
    scene.end().await;
}
