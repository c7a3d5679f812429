# Images with the agent and GitHub's runner in them. Of one cloud, after `make dist`:
#   packer init images && packer build -only='*.amazon-ebs.*' -var version=0.1.0 -var runner=https://… -var runner_sha256=… images
packer {
  required_version = ">= 1.9"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
    azure = {
      source  = "github.com/hashicorp/azure"
      version = "~> 2.2"
    }
    googlecompute = {
      source  = "github.com/hashicorp/googlecompute"
      version = "~> 1.1"
    }
  }
}

variable "version" {
  type        = string
  description = "Of the agent: a launcher takes an image's agent only if it is of its own version."
}

variable "arch" {
  type        = string
  default     = "x64"
  description = "x64 or arm64."
  validation {
    condition     = contains(["x64", "arm64"], var.arch)
    error_message = "The architecture is x64 or arm64."
  }
}

variable "gpu" {
  type        = bool
  default     = false
  description = "With NVIDIA's driver and container toolkit. The machine that builds it needs no GPU."
}

variable "runner" {
  type        = string
  description = "Address of GitHub's runner: actions-runner-linux-ARCH-VERSION.tar.gz of github.com/actions/runner, or of a mirror."
}

variable "runner_sha256" {
  type        = string
  description = "What its release notes say."
}

variable "dist" {
  type        = string
  default     = "dist"
  description = "The folder of `make dist`."
}

locals {
  name  = "cml-runner-${replace(var.version, ".", "-")}-${var.gpu ? "gpu" : "cpu"}-${var.arch}"
  stamp = formatdate("YYYYMMDDhhmmss", timestamp())
  agent = "${var.dist}/cml-agent-${var.version}-linux-${var.arch}"
}
