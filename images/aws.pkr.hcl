variable "aws_region" {
  type    = string
  default = "us-west-1"
}

source "amazon-ebs" "runner" {
  region        = var.aws_region
  instance_type = var.arch == "arm64" ? "m7g.large" : "m7i.large"
  ssh_username  = "ubuntu"
  ami_name      = "${local.name}-${local.stamp}"
  ena_support   = true

  source_ami_filter {
    # Canonical
    owners      = ["099720109477"]
    most_recent = true
    filters = {
      name                = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-${var.arch == "arm64" ? "arm64" : "amd64"}-server-*"
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
  }

  launch_block_device_mappings {
    device_name           = "/dev/sda1"
    volume_size           = var.gpu ? 30 : 12
    volume_type           = "gp3"
    delete_on_termination = true
  }

  metadata_options {
    http_tokens = "required"
  }
}
