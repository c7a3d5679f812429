# shellcheck shell=sh
# Powering off does not end the bill on Azure: what ends it is that the machine's own group is deleted, as the machine's only identity may.
metadata() {
	curl -fsS -m 20 -H Metadata:true "${AZURE_POD_IDENTITY_AUTHORITY_HOST:-http://169.254.169.254}/metadata/$1"
}
about() {
	metadata "instance/compute/$1?api-version=2021-02-01&format=text"
}
case $(about azEnvironment) in
AzureUSGovernmentCloud) manager=https://management.usgovcloudapi.net ;;
AzureChinaCloud) manager=https://management.chinacloudapi.cn ;;
*) manager=https://management.azure.com ;;
esac
token=$(metadata "identity/oauth2/token?api-version=2018-02-01&resource=$manager/" | sed 's/.*"access_token": *"\([^"]*\)".*/\1/')
manager=${AZURE_RESOURCE_MANAGER_ENDPOINT:-$manager}/subscriptions/$(about subscriptionId)
# Not in the arguments, which everybody on the machine can see.
printf 'Authorization: Bearer %s\n' "$token" | curl -fsS -m 60 -H @- -X DELETE \
	"$manager/resourceGroups/"@@group@@"?api-version=2021-04-01&forceDeletionTypes=Microsoft.Compute/virtualMachines"
