variable "azure_subscription" {
  type    = string
  default = env("AZURE_SUBSCRIPTION_ID")
}

variable "azure_group" {
  type        = string
  default     = "cml-images"
  description = "The resource group that the image is put into; it must be there."
}

variable "azure_location" {
  type    = string
  default = "westus2"
}

source "azure-arm" "runner" {
  use_azure_cli_auth                = true
  subscription_id                   = var.azure_subscription
  location                          = var.azure_location
  vm_size                           = var.arch == "arm64" ? "Standard_D2ps_v5" : "Standard_D2s_v5"
  os_type                           = "Linux"
  image_publisher                   = "Canonical"
  image_offer                       = "ubuntu-24_04-lts"
  image_sku                         = var.arch == "arm64" ? "server-arm64" : "server"
  managed_image_name                = "${local.name}-${local.stamp}"
  managed_image_resource_group_name = var.azure_group
}
