build {
  sources = [
    "source.amazon-ebs.runner",
    "source.azure-arm.runner",
    "source.googlecompute.runner",
  ]

  provisioner "file" {
    source      = local.agent
    destination = "/tmp/cml-agent"
  }

  provisioner "shell" {
    script          = "${path.root}/install.sh"
    execute_command = "sudo -n env {{ .Vars }} bash '{{ .Path }}'"
    environment_vars = [
      "CML_IMAGE=yes",
      "CML_GPU=${var.gpu ? "yes" : "no"}",
      "CML_AGENT=/tmp/cml-agent",
      "CML_RUNNER=${var.runner}",
      "CML_RUNNER_SHA256=${var.runner_sha256}",
    ]
  }

  # Azure makes an image only of a machine that its own agent has let go.
  provisioner "shell" {
    only   = ["azure-arm.runner"]
    inline = ["sudo -n waagent -force -deprovision+user"]
  }
}
