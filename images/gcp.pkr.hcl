variable "gcp_project" {
  type    = string
  default = env("GOOGLE_CLOUD_PROJECT")
}

variable "gcp_zone" {
  type    = string
  default = "us-west1-b"
}

source "googlecompute" "runner" {
  project_id              = var.gcp_project
  zone                    = var.gcp_zone
  machine_type            = var.arch == "arm64" ? "t2a-standard-2" : "e2-standard-2"
  source_image_family     = "ubuntu-2404-lts-${var.arch == "arm64" ? "arm64" : "amd64"}"
  source_image_project_id = ["ubuntu-os-cloud"]
  ssh_username            = "packer"
  disk_size               = var.gpu ? 30 : 12
  image_name              = "${local.name}-${local.stamp}"
  image_family            = local.name
}
