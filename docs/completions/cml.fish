# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_cml_global_optspecs
    string join \n h/help V/version
end

function __fish_cml_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_cml_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_cml_using_subcommand
    set -l cmd (__fish_cml_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c cml -n "__fish_cml_needs_command" -s h -l help -d 'Print help'
complete -c cml -n "__fish_cml_needs_command" -s V -l version -d 'Print version'
complete -c cml -n "__fish_cml_needs_command" -f -a "runner" -d 'Launch a runner on a cloud, or run one on this host'
complete -c cml -n "__fish_cml_using_subcommand runner" -l labels -d 'One or more (comma-delimited) labels for this runner' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l idle-timeout -d 'Time to wait for jobs before terminating: seconds, units (`5min`, `1h30m`), or `never` (also -1 and 0)' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l job-time-limit -d 'Longest time that one job may run before it is interrupted and restarted (`never` for no limit)' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l retry-policy -d 'While an interrupted job waits for the others of its run to end: `restart` cancels them if they take too long, `spare` leaves them alone, and the re-run to `cml runner reap` if the machine is gone before' -r -f -a "restart\t'They are cancelled if they do not end in time, and run again too'
spare\t'They are left alone'"
complete -c cml -n "__fish_cml_using_subcommand runner" -l max-lifetime -d 'Longest life of the machine: past it a job is interrupted and restarted, and the machine goes' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l on-interrupt -d 'Run this base64-encoded script as the jobs\' user before a running job is interrupted, to save its work: `CML_INTERRUPT_REASON` and `CML_SECONDS_LEFT` tell it why and how long it may take' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l max-attempts -d 'Never restart a workflow run that has had this many attempts' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l provisioning-timeout -d 'Time from the launch until the runner must be online; past it everything is destroyed' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l registration-check -d 'How often a runner that has had no job for this long asks the forge whether it is still registered (`never` not to ask)' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l job-metadata -d 'What jobs may ask the cloud\'s metadata service: `none`; `role` for the credentials of `--cloud-permission-set` and the kind of the machine; `all`, and with it the start-up data and the forge token in it [default: `role` with `--cloud-permission-set`, else `none`]' -r -f -a "none\t'Nothing'
role\t'The credentials of the role that the machine was given for them, and what kind of machine it is'
all\t'All that it tells'"
complete -c cml -n "__fish_cml_using_subcommand runner" -l executor -d 'What jobs run in: containers (`docker`), the machine itself (`shell`), or containers where a Docker answers (`auto`)' -r -f -a "auto\t'Containers where a Docker answers, else the machine itself'
docker\t'Containers'
shell\t'The machine itself'"
complete -c cml -n "__fish_cml_using_subcommand runner" -l docker -d 'Whether jobs on an instance may start containers: where Docker is installed (`auto`), or `never`, as whoever may can become root. Without, they have a `/tmp` of their own too' -r -f -a "auto\t'Where Docker is installed'
never\t'Never'"
complete -c cml -n "__fish_cml_using_subcommand runner" -l docker-image -d 'Image of the containers that jobs run in which name none' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l docker-volumes -d 'Volume mount to pass to Docker, e.g. `/var/run/docker.sock:/var/run/docker.sock`; repeatable; only GitLab' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l job-user -d 'Unprivileged user that jobs run as, made when it is missing; only for root [default: `cml` on an instance, whoever you are on this host]' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l workdir -d 'Directory of the runner and its work [default: ~/.cml/NAME on this host, /opt/cml/runner on an instance]' -r -F
complete -c cml -n "__fish_cml_using_subcommand runner" -l runner-version -d 'Version of the forge\'s runner, without `v` [default: what the forge offers]' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l runner-url -d 'Where to download the forge\'s runner from; `{version}`, `{os}` and `{arch}` are replaced. Bitbucket\'s runner of containers is an image: `docker://IMAGE`' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l runner-sha256 -d 'SHA-256 of that download or image, in hex' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l proxy -d 'Proxy of the machine\'s network, `http://[USER:PASSWORD@]HOST:PORT`: for the agent, its downloads, the runner and its jobs; the launcher\'s own is in its environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`)' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l no-proxy -d 'One or more (comma-delimited) hosts, domains and addresses that the machine reaches without `--proxy`' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l ca-certificates -d 'File of certificates (PEM) of authorities that are trusted besides the system\'s: by the launcher, and on the machine by the agent, its downloads, the runner and its jobs' -r -F
complete -c cml -n "__fish_cml_using_subcommand runner" -l name -d 'Runner name displayed in the CI [default: cml-{ID}]' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l export -d 'Only check the options and the token, and write them to this file (mode 0600): `cml-agent install` has a service of this host made of it' -r -F
complete -c cml -n "__fish_cml_using_subcommand runner" -l state-dir -d 'Directory of the runner\'s state on this host [default: ~/.cml/NAME]' -r -F
complete -c cml -n "__fish_cml_using_subcommand runner" -l output -d 'Form of the result on standard output' -r -f -a "text\t'Lines for a person'
json\t'One JSON object'"
complete -c cml -n "__fish_cml_using_subcommand runner" -l agent-url -d 'Where an instance downloads the agent from (several addresses: separated by spaces); `{version}` and `{arch}` are replaced' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l agent-sha256 -d 'SHA-256 of that download, in hex' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud -d 'Cloud to deploy the runner on [default: none, it runs on this host]' -r -f -a "aws\t'Amazon EC2'
azure\t'Microsoft Azure'
gcp\t'Google Compute Engine'
kubernetes\t'A Kubernetes cluster'"
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-type -d 'Instance type: a generic size (s, m, l, xl, m+t4, …) or a native type such as `t2.micro`' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-gpu -d 'GPU type: nogpu, t4, l4, a10, v100, a100, h100, k80, tesla, …' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-hdd-size -d 'Disk storage in GB; never less than the image needs' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-spot-price -d 'Maximum spot instance bidding price in USD per hour; -1 for no cap' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-region -d 'Region: generic (us-west, us-east, eu-west, eu-north) or native, or an availability zone' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-permission-set -d 'AWS instance profile (ARN or name), Azure user-assigned identities (resource ids), GCP or Kubernetes service account' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-metadata -d '`key=value` pair to associate with the instance; repeatable' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-ssh-private -d 'Private SSH RSA key for debugging (its public half goes to the instance)' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-aws-security-group -d 'AWS security group: identifier or name [default: the VPC\'s default group]' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-aws-subnet -d 'AWS subnet identifier [default: the default VPC\'s subnets]' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-gcp-network -d 'Google Cloud network, by name, or subnetwork, by path; `,no-external-ip` behind it for one with a Cloud NAT [default: `default`]' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-image -d 'Machine image: an id, or `OWNER/NAME-PATTERN` (newest wins) [default: Ubuntu 24.04; with a GPU, the cloud\'s NVIDIA image]' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-kubernetes-node-selector -d 'Kubernetes node selector `key=value`; repeatable' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l token -d 'Personal access token [default: `REPO_TOKEN`, else the forge\'s own `GITHUB_TOKEN`, `GITLAB_TOKEN` or `BITBUCKET_TOKEN`]' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l token-file -d 'File that the token is read from; `-` for standard input' -r -F
complete -c cml -n "__fish_cml_using_subcommand runner" -l app-id -d 'GitHub App in place of a token: its client id or its number. Machines get a configuration for one job only: with `--cloud`, `--single` is required' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l app-private-key -d 'File of that App\'s private key (PEM); `-` for standard input. The environment may hold the key itself' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l repo -d 'Repository, organisation or group: a URL or a slug `owner/repo` [default: the git remote, else the CI\'s own variables]' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l driver -d 'Forge of the repository [default: from the repository\'s host, else the CI\'s own variables]' -r -f -a "github\t'GitHub.com, GitHub Enterprise Cloud and Server'
gitlab\t'GitLab.com and self-managed GitLab'
bitbucket\t'Bitbucket Cloud'"
complete -c cml -n "__fish_cml_using_subcommand runner" -l log -d 'Least important level that is logged' -r -f -a "error\t'We gave up'
warn\t'A person may need to act'
info\t'Each change of state and each effect outside'
debug\t'Requests, without secrets'"
complete -c cml -n "__fish_cml_using_subcommand runner" -l tpi-version -d 'Version constraint of the old tool\'s Terraform provider' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cml-version -d 'Version of the old tool on the instance' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l tf-resource -d 'Marked the old tool\'s on-instance agent' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l destroy-delay -d 'Seconds that the old tool waited before it destroyed the instance' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l gcp-access-token -d 'OAuth token of the old tool\'s GCP driver' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l runner-path -d 'The old tool accepted and ignored it' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-startup-script -d 'Run this base64-encoded script as root on the instance before the runner starts (its shebang is honoured; it may restart the machine as the last thing that it does)' -r
complete -c cml -n "__fish_cml_using_subcommand runner" -l no-retry -d 'Don\'t restart the workflow when terminated due to instance disposal or the job time limit'
complete -c cml -n "__fish_cml_using_subcommand runner" -l single -d 'Terminate the runner after one job. Bitbucket has no runners of one job: there it goes as soon as it has no step, which may be after another one'
complete -c cml -n "__fish_cml_using_subcommand runner" -l reuse -d 'Don\'t launch a new runner if an existing one has the same name or all the labels'
complete -c cml -n "__fish_cml_using_subcommand runner" -l reuse-idle -d 'Don\'t launch a new runner if one with all the labels is online and idle'
complete -c cml -n "__fish_cml_using_subcommand runner" -l dry-run -d 'Print what would be done, secrets masked, and do nothing'
complete -c cml -n "__fish_cml_using_subcommand runner" -l cloud-spot -d 'Request a preemptible spot instance'
complete -c cml -n "__fish_cml_using_subcommand runner" -s h -l help -d 'Print this'
complete -c cml -n "__fish_cml_using_subcommand runner" -s V -l version -d 'Print the version'
