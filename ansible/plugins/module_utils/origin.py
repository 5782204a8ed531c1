# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""Where a run comes from: the CI job, the commit, the person. Everything here is a claim of the environment."""

import json
import os
import pwd
import subprocess
import time

GIT_S = 1.0

# The keys that tie a run to a change: as the headers of /ingest/terraform.
KEYS = (
    "change_id",
    "repository",
    "commit",
    "merge_commit",
    "branch",
    "pull_request",
    "ci_provider",
    "run_id",
    "run_attempt",
    "run_url",
    "job",
    "actor",
    "environment",
    "workspace",
    "traceparent",
)


def _github(env):
    found = {
        "repository": env.get("GITHUB_REPOSITORY"),
        "commit": env.get("GITHUB_SHA"),
        "branch": env.get("GITHUB_HEAD_REF") or env.get("GITHUB_REF_NAME"),
        "run_id": env.get("GITHUB_RUN_ID"),
        "run_attempt": env.get("GITHUB_RUN_ATTEMPT"),
        "job": env.get("GITHUB_JOB"),
        "actor": env.get("GITHUB_TRIGGERING_ACTOR") or env.get("GITHUB_ACTOR"),
    }
    if env.get("GITHUB_SERVER_URL") and found["repository"] and found["run_id"]:
        found["run_url"] = "%s/%s/actions/runs/%s" % (env["GITHUB_SERVER_URL"], found["repository"], found["run_id"])
    words = env.get("GITHUB_REF", "").split("/")
    if len(words) > 2 and words[1] == "pull":
        found["pull_request"] = words[2]
    if env.get("GITHUB_EVENT_NAME", "").startswith("pull_request") and env.get("GITHUB_EVENT_PATH"):
        # There GITHUB_SHA is a merge commit made for the test; the head's stands in the event.
        try:
            with open(env["GITHUB_EVENT_PATH"], "rb") as file:
                event = json.loads(file.read(4 * 1024 * 1024))
            found["pull_request"] = str(event["pull_request"]["number"])
            found["merge_commit"], found["commit"] = found["commit"], str(event["pull_request"]["head"]["sha"])
        except (OSError, ValueError, LookupError, TypeError):
            pass
    return found


def _gitlab(env):
    head = env.get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA")
    return {
        "repository": env.get("CI_PROJECT_PATH"),
        "commit": head or env.get("CI_COMMIT_SHA"),
        "merge_commit": env.get("CI_COMMIT_SHA") if head else None,
        "branch": env.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME") or env.get("CI_COMMIT_REF_NAME"),
        "pull_request": env.get("CI_MERGE_REQUEST_IID"),
        "run_id": env.get("CI_PIPELINE_ID"),
        "run_url": env.get("CI_PIPELINE_URL") or env.get("CI_JOB_URL"),
        "job": env.get("CI_JOB_NAME"),
        "actor": env.get("GITLAB_USER_LOGIN"),
        "environment": env.get("CI_ENVIRONMENT_NAME"),
    }


def _jenkins(env):
    return {
        "repository": env.get("GIT_URL"),
        "commit": env.get("GIT_COMMIT"),
        "branch": env.get("CHANGE_BRANCH") or env.get("GIT_BRANCH"),
        "pull_request": env.get("CHANGE_ID"),
        "run_id": env.get("BUILD_TAG") or env.get("BUILD_ID"),
        "run_url": env.get("BUILD_URL"),
        "job": env.get("JOB_NAME"),
        "actor": env.get("BUILD_USER_ID") or env.get("CHANGE_AUTHOR"),
    }


def _circleci(env):
    owner, name = env.get("CIRCLE_PROJECT_USERNAME"), env.get("CIRCLE_PROJECT_REPONAME")
    return {
        "repository": "%s/%s" % (owner, name) if owner and name else env.get("CIRCLE_REPOSITORY_URL"),
        "commit": env.get("CIRCLE_SHA1"),
        "branch": env.get("CIRCLE_BRANCH"),
        "pull_request": env.get("CIRCLE_PULL_REQUEST", "").rpartition("/")[2],
        "run_id": env.get("CIRCLE_WORKFLOW_ID") or env.get("CIRCLE_BUILD_NUM"),
        "run_url": env.get("CIRCLE_BUILD_URL"),
        "job": env.get("CIRCLE_JOB"),
        "actor": env.get("CIRCLE_USERNAME"),
    }


def _buildkite(env):
    commit, pull_request = env.get("BUILDKITE_COMMIT"), env.get("BUILDKITE_PULL_REQUEST")
    return {
        "repository": env.get("BUILDKITE_REPO"),
        "commit": None if commit == "HEAD" else commit,
        "branch": env.get("BUILDKITE_BRANCH"),
        "pull_request": None if pull_request == "false" else pull_request,
        "run_id": env.get("BUILDKITE_BUILD_ID"),
        "run_attempt": env.get("BUILDKITE_RETRY_COUNT"),
        "run_url": env.get("BUILDKITE_BUILD_URL"),
        "job": env.get("BUILDKITE_LABEL") or env.get("BUILDKITE_JOB_ID"),
        "actor": env.get("BUILDKITE_BUILD_CREATOR"),
    }


def _azure(env):
    head = env.get("SYSTEM_PULLREQUEST_SOURCECOMMITID")
    found = {
        "repository": env.get("BUILD_REPOSITORY_URI"),
        "commit": head or env.get("BUILD_SOURCEVERSION"),
        "merge_commit": env.get("BUILD_SOURCEVERSION") if head else None,
        "branch": env.get("SYSTEM_PULLREQUEST_SOURCEBRANCH") or env.get("BUILD_SOURCEBRANCH"),
        "pull_request": env.get("SYSTEM_PULLREQUEST_PULLREQUESTNUMBER") or env.get("SYSTEM_PULLREQUEST_PULLREQUESTID"),
        "run_id": env.get("BUILD_BUILDID"),
        "run_attempt": env.get("SYSTEM_JOBATTEMPT"),
        "job": env.get("SYSTEM_JOBDISPLAYNAME") or env.get("SYSTEM_JOBID"),
        "actor": env.get("BUILD_REQUESTEDFOREMAIL") or env.get("BUILD_REQUESTEDFOR"),
    }
    server, project = env.get("SYSTEM_COLLECTIONURI"), env.get("SYSTEM_TEAMPROJECT")
    if server and project and found["run_id"]:
        found["run_url"] = "%s/%s/_build/results?buildId=%s" % (server.rstrip("/"), project, found["run_id"])
    return found


def _bitbucket(env):
    return {
        "repository": env.get("BITBUCKET_REPO_FULL_NAME") or env.get("BITBUCKET_GIT_HTTP_ORIGIN"),
        "commit": env.get("BITBUCKET_COMMIT"),
        "branch": env.get("BITBUCKET_BRANCH"),
        "pull_request": env.get("BITBUCKET_PR_ID"),
        "run_id": env.get("BITBUCKET_PIPELINE_UUID") or env.get("BITBUCKET_BUILD_NUMBER"),
        "actor": env.get("BITBUCKET_STEP_TRIGGERER_UUID"),
        "environment": env.get("BITBUCKET_DEPLOYMENT_ENVIRONMENT"),
    }


def _awx(env):
    found = {"commit": env.get("PROJECT_REVISION"), "run_id": env.get("JOB_ID")}
    if env.get("AWX_HOST"):
        found["run_url"] = "%s/#/jobs/playbook/%s" % (env["AWX_HOST"].rstrip("/"), env["JOB_ID"])
    return found


def _semaphore(env):
    return {"run_id": env.get("SEMAPHORE_TASK_DETAILS_ID"), "actor": env.get("SEMAPHORE_TASK_DETAILS_USERNAME")}


_PROVIDERS = (
    ("github", lambda env: env.get("GITHUB_ACTIONS") == "true", _github),
    ("gitlab", lambda env: env.get("GITLAB_CI"), _gitlab),
    ("jenkins", lambda env: env.get("JENKINS_URL"), _jenkins),
    ("circleci", lambda env: env.get("CIRCLECI"), _circleci),
    ("buildkite", lambda env: env.get("BUILDKITE"), _buildkite),
    ("azure", lambda env: env.get("TF_BUILD"), _azure),
    ("bitbucket", lambda env: env.get("BITBUCKET_COMMIT"), _bitbucket),
    ("awx", lambda env: env.get("JOB_ID") and (env.get("AWX_HOST") or env.get("AWX_ISOLATED_DATA_DIR")), _awx),
    ("semaphore", lambda env: env.get("SEMAPHORE_TASK_DETAILS_ID"), _semaphore),
)


def without_credentials(url):
    """The address of a repository without who may read it."""
    scheme, found, rest = url.partition("://")
    if found:
        authority, slash, path = rest.partition("/")
        return scheme + found + authority.rpartition("@")[2] + slash + path
    return url


def correlation(env):
    """What ties the run to others of the same change; `INFRATRACK_<KEY>` overrides each."""
    found = {}
    for name, is_there, read in _PROVIDERS:
        if is_there(env):
            found = read(env)
            found["ci_provider"] = name
            break
    found["traceparent"] = env.get("TRACEPARENT")
    for key in KEYS:
        found[key] = env.get("INFRATRACK_" + key.upper()) or found.get(key)
    if found["repository"]:
        found["repository"] = without_credentials(found["repository"])
    return {key: found[key][:512] for key in KEYS if found[key]}


def user(env, actor):
    """Who started it: the CI's actor, who called sudo, or the login."""
    if actor:
        return actor
    if env.get("SUDO_USER"):
        return env["SUDO_USER"]
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


class Git:
    """The commit of a folder, asked of git without waiting for it until the answer is needed."""

    def __init__(self, folder):
        self.processes = []
        self.deadline = time.monotonic() + GIT_S
        if not self._is_in_repository(folder):
            return
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C"}
        env.update({"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"})
        try:
            for words in (
                ["status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules"],
                ["config", "--get", "remote.origin.url"],
            ):
                self.processes.append(self._ask(folder, env, words))
        except OSError:
            pass  # there is no git

    @staticmethod
    def _ask(folder, env, words):
        return subprocess.Popen(
            ["git", "-c", "core.fsmonitor=false"] + words,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    @staticmethod
    def _is_in_repository(folder):
        while True:
            if os.path.exists(os.path.join(folder, ".git")):
                return True
            above = os.path.dirname(folder)
            if above == folder:
                return False
            folder = above

    def answer(self):
        """{commit, dirty, branch, remote}, what is known of it in time."""
        texts = []
        for process in self.processes:
            try:
                text = process.communicate(timeout=max(0.02, self.deadline - time.monotonic()))[0]
                texts.append(text.decode("utf-8", "replace"))
            except subprocess.TimeoutExpired:
                # Not waited for: what it started may hold its output open.
                process.kill()
                process.stdout.close()
                texts.append("")
        found = {}
        if not texts:
            return found
        lines = texts[0].splitlines()
        for line in lines:
            words = line.split(" ")
            if words[:2] == ["#", "branch.oid"] and words[2] != "(initial)":
                found["commit"] = words[2]
            elif words[:2] == ["#", "branch.head"] and words[2] != "(detached)":
                found["branch"] = words[2][:512]
        if "commit" in found:
            found["dirty"] = any(not line.startswith("#") for line in lines)
        remote = texts[1].strip() if len(texts) > 1 else ""
        if remote:
            found["remote"] = without_credentials(remote)[:512]
        return found
